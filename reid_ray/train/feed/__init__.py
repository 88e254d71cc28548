"""Data loading for training: image-caption pairs, batch sampler, decoding, augmentation, prefetching."""
