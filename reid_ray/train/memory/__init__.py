"""The memory job: what a training step needs per device, by arithmetic and by a dry run without values."""
