"""The references job: a bank of garments, shoes, hair, bags and hats that people can be dressed in."""
