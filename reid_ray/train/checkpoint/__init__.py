"""Checkpoints of a run: what is in one, where they are kept, which weights are the best so far."""
