"""The published data sets, a file each: (store, source config) -> image records with their captions. registry.py lists them."""
