"""Images and captions as data: reading, decoding, synthetic people, batches."""
