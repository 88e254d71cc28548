"""Noise-aware masking of caption tokens (NAM): noise levels, their store, their table and their page."""
