"""Distributed training: Ray Train runs the workers, DeepSpeed ZeRO shards their state, losses and batches are pure functions."""
