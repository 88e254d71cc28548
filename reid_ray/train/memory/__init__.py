"""The memory job: GPU memory of a training step, predicted by arithmetic and a dry run on the meta device."""
