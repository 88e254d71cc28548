"""Training of dual encoders: the recipe, its towers, validation and direct transfer."""
