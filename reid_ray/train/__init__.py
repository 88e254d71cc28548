"""Training: Ray Train runs the loop, DeepSpeed shards it, losses and batches are pure."""
