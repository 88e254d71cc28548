"""An encoder that computes in half precision: matrix products in bfloat16 or float16 (torch.autocast), weights and unit vectors in float32.

On GPUs with tensor cores two to four times as fast. A cosine moves by some thousandths, so vectors of one search are best of one precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image

from reid_ray.model.encoder import Encoder

Precision = Literal["float32", "bfloat16", "float16"]


def with_precision(encoder: Encoder, precision: Precision, *, device: str) -> Encoder:
    """The encoder itself for float32, else one that computes so.

    Args:
        encoder: on `device`; what it gives is made a unit vector in float32.
        precision: of matrix products and convolutions.
        device: torch device.
    """
    return encoder if precision == "float32" else _Autocast(encoder, getattr(torch, precision), torch.device(device).type)


class _Autocast:
    """An Encoder around another."""

    def __init__(self, encoder: Encoder, dtype: torch.dtype, device_type: str) -> None:
        self._encoder, self._dtype, self._device_type = encoder, dtype, device_type
        self.dim, self.context = encoder.dim, encoder.context
        self.reads_texts, self.fingerprint = encoder.reads_texts, encoder.fingerprint

    def encode_images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """N RGB pictures of any size -> float32 [N, dim]."""
        with self._half():
            return self._encoder.encode_images(pictures)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts -> float32 [N, dim]."""
        with self._half():
            return self._encoder.encode_texts(texts)

    def encode_and_measure(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same, and their tokens: (float32 [N, dim], int64 [N])."""
        with self._half():
            return self._encoder.encode_and_measure(texts)

    def _half(self) -> torch.autocast:
        return torch.autocast(self._device_type, dtype=self._dtype)
