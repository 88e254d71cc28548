"""Checkpointing: contents, atomic storage, the best weights so far, and the working folders of runs."""
