"""The loss terms, as pure functions of tensors, and the weighted objective made of them."""
