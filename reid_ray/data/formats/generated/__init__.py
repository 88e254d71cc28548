"""Data sets for pre-training whose captions, or images too, a model made."""
