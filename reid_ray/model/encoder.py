"""Encoder interface (protocol) for index, evaluation and serving: pictures and texts in, unit vectors out.

The dual encoder implements it; so can any other model. Callers depend on this file, not on a model class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image


class Encoder(Protocol):
    """Pictures and texts into one space of `dim` dimensions, L2-normalised, so that a dot product is a cosine."""

    dim: int
    context: int  # tokens of a text that the model reads; what is beyond is cut off
    reads_texts: bool  # False: encode_texts is not to be called, the model has no texts in the space of its pictures
    fingerprint: str  # changes when the weights or the preprocessing change; an index remembers it

    def encode_images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """N RGB pictures of any size -> float32 [N, dim]."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts (truncated to the model's context) -> float32 [N, dim]."""
        ...

    def encode_and_measure(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same, and how many tokens each text has before it is cut: (float32 [N, dim], int64 [N])."""
        ...
