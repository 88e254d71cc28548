"""The plausibility job: whether captions can be true of a crowd and of their pictures, whoever made them."""
