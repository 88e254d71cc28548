"""Dual encoders: CLIP and SigLIP, their tokenizers and image transforms, one call each for images and texts."""
