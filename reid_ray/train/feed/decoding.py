"""Decoding and augmentation of training pictures by row number: deterministic, so any process gives the same pixels.

Knows the prepared file, augmentation and a function that resizes; not models, texts, threads or Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reid_ray.data.images import decode_image
from reid_ray.train.feed.augment import Fill, augment
from reid_ray.train.feed.batches import augmentation
from reid_ray.train.feed.config import BatchesConfig
from reid_ray.train.feed.pictures import PictureStore

# An RGB picture of any size -> uint8 [H, W, 3]; H and W may differ from picture to picture if the model takes that.
Resize = Callable[[Image.Image], np.ndarray]


@dataclass(frozen=True)
class PictureRequest:
    """The pictures that one step needs: rows of PICTURES, and places in the global batch, which seed the augmentation."""

    step: int
    row_A: np.ndarray
    place_A: np.ndarray


class Decoder:
    """Rows of a picture file -> what a model's collate takes. Can be sent to another process.

    Args:
        path: the file PICTURES that prepare_pairs wrote.
        config: seed and augmentation.
        resize: to the model's size.
        fill: colours of padding and of erased rectangles.
    """

    def __init__(self, path: Path, config: BatchesConfig, *, resize: Resize, fill: Fill) -> None:
        self._pictures, self._config, self._resize, self._fill = PictureStore(path), config, resize, fill

    def __call__(self, request: PictureRequest) -> list[np.ndarray]:
        """Each picture as uint8 [H, W, 3], augmented by the draws that belong to its step and place."""
        pairs = zip(request.row_A.tolist(), request.place_A.tolist(), strict=True)
        return [self._picture(row, request.step, place) for row, place in pairs]

    def _picture(self, row: int, step: int, place: int) -> np.ndarray:
        return augment(
            self._resize(decode_image(self._pictures[row])),
            augmentation(self._config.seed, step, place),
            flip=self._config.flip,
            crop_padding=self._config.crop_padding,
            erase=self._config.erase,
            colour=self._config.colour,
            fill=self._fill,
        )
