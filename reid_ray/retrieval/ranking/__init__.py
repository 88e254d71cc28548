"""Exact ranking of a gallery, on CPU and on a device, and k-reciprocal re-ranking. Arrays in, ranks out."""
