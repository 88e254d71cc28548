"""Noise-aware masking of caption tokens: levels, their store, their table and their page."""
