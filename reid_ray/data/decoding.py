"""Training pictures by the number of their row: read, decoded, resized and augmented, the same wherever and whenever it is done.

Knows the prepared file, augmentation and a function that resizes; not models, texts, threads or Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reid_ray.config.train import BatchesConfig
from reid_ray.data.augment import augment
from reid_ray.data.batches import augmentation
from reid_ray.data.images import decode_image
from reid_ray.data.pairs import PictureStore

# An RGB picture of any size -> uint8 [H, W, 3]; H and W may differ from picture to picture if the model takes that.
Resize = Callable[[Image.Image], np.ndarray]


class Decoder:
    """Rows of a picture file -> what a model's collate takes.

    Args:
        path: the file PICTURES that prepare_pairs wrote.
        config: seed and augmentation.
        resize: to the model's size.
        fill: colour of padding and erased rectangles.
    """

    def __init__(self, path: Path, config: BatchesConfig, *, resize: Resize, fill: tuple[int, int, int]) -> None:
        self._pictures, self._config, self._resize, self._fill = PictureStore(path), config, resize, fill

    def __call__(self, row_A: Sequence[int], *, step: int, place_A: Sequence[int]) -> list[np.ndarray]:
        """Each picture as uint8 [H, W, 3], augmented by the draws that belong to `step` and its place in the global batch."""
        return [self._picture(row, step, place) for row, place in zip(row_A, place_A, strict=True)]

    def _picture(self, row: int, step: int, place: int) -> np.ndarray:
        return augment(
            self._resize(decode_image(self._pictures[row])),
            augmentation(self._config.seed, step, place),
            flip=self._config.flip,
            crop_padding=self._config.crop_padding,
            erase=self._config.erase,
            fill=self._fill,
        )
