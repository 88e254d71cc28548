"""Image preprocessing: resize and normalise. One place, so that training, indexing and serving cannot differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

# Mean and standard deviation per RGB channel of CLIP's own training set, as published with its weights.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageTransform:
    """Resize to height x width (bicubic, the aspect ratio is not kept, as usual for person crops), then normalise per channel."""

    height: int
    width: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def resize(self, picture: Image.Image) -> np.ndarray:
        """RGB picture of any size -> uint8 [height, width, 3]."""
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        if picture.size != (self.width, self.height):
            picture = picture.resize((self.width, self.height), Image.Resampling.BICUBIC)
        return np.asarray(picture)

    def normalise(self, pixels_NHWC: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] -> float32 [N, 3, H, W], zero mean and unit variance over CLIP's training set."""
        pixels = np.ascontiguousarray(pixels_NHWC.transpose(0, 3, 1, 2)).astype(np.float32)  # moving bytes costs a quarter of floats
        pixels *= (np.float32(1 / 255) / np.asarray(self.std, np.float32))[:, None, None]
        pixels -= (np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32))[:, None, None]
        return pixels
