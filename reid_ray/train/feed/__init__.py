"""Training samples on their way to the device: pairs, batch plan, decoding, augmentation, prefetching."""
