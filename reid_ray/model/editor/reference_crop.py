"""Reference crops as an attribute encoder sees them: on a square, what does not belong to the thing replaced by noise (DP).

The noise is a function of the crop's own bytes, so a crop looks the same wherever it is used. Knows arrays and Pillow; no model.
"""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

# Of CLIP's image encoders.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def reference_pixels(crop: np.ndarray, *, size: int) -> np.ndarray:
    """RGBA uint8 [h, w, 4] -> uint8 [size, size, 3]: proportions kept, noise where the thing is not.

    Raises:
        ValueError: no pixel belongs to the thing.
    """
    visible = crop[..., 3] > 127
    if not visible.any():
        raise ValueError("a reference crop shows nothing: its alpha is 0 everywhere")
    filled = crop[..., :3].copy()
    filled[~visible] = crop[..., :3][visible].mean(axis=0)  # so that its edge keeps its colour when it is resized
    height, width = crop.shape[:2]
    scale = size / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    rgb = np.asarray(Image.fromarray(filled).resize((columns, rows), Image.Resampling.BICUBIC))
    alpha = np.asarray(Image.fromarray(visible.astype(np.uint8) * 255).resize((columns, rows), Image.Resampling.BILINEAR)) > 127
    if not alpha.any():
        alpha = np.ones_like(alpha)
    square = np.random.default_rng(zlib.crc32(np.ascontiguousarray(crop))).integers(0, 256, (size, size, 3), dtype=np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    np.copyto(square[top : top + rows, left : left + columns], rgb, where=alpha[..., None])
    return square


def normalised(pixels_NHWC: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in CLIP's units."""
    return np.ascontiguousarray(((pixels_NHWC.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2))
