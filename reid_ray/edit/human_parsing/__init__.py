"""The segment job: where people's things are on their images, and which nouns of the captions name them."""
