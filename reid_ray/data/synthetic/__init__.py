"""Synthetic people, drawn from attributes that are known, with captions of them."""
