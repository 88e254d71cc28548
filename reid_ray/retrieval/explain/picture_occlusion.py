"""Occlusion map of a picture (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014): what each place is worth.

A grid of about 32 near-square patches is laid over the picture. Each patch alone, and each square of 2 x 2, is painted with the picture's
mean colour: unlike a blur, that takes the colour of a garment away, too. Effects are fitted so that those of the patches that were painted
over together add up to what that cost (ridge regression), so that patches that count only together are found. Works for any encoder, for
it only asks what one thinks of pictures. Knows pictures and grids; not texts, galleries or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

PATCHES: Final = 32
"""About so many patches has a grid."""
SIDES: Final = (1, 2)
"""Sides of the squares of patches that are painted over."""
_SHRINKAGE: Final = 1.0  # of ridge regression; from 0.1 to 10 little changes
_AT_ONCE: Final = 32

Scorer = Callable[[Sequence[Image.Image]], np.ndarray]
"""N pictures -> their scores [N]."""


@dataclass(frozen=True)
class HeatMap:
    """What the score loses without each patch of a grid over the picture, in units of cosine: [rows][columns], from the top left."""

    effects: tuple[tuple[float, ...], ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.effects)

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.effects[0])


def grid_of(width: int, height: int, patches: int = PATCHES) -> tuple[int, int]:
    """(rows, columns) of near-square patches, about as many as asked for, none smaller than a pixel."""
    rows = min(height, patches, max(1, round((patches * height / width) ** 0.5)))
    return rows, min(width, max(1, round(patches / rows)))


def squares_over(rows: int, columns: int) -> np.ndarray:
    """What is painted over, one after the other: bool [S, rows, columns]; together they cover every patch."""
    squares = []
    for side in sorted({(min(side, rows), min(side, columns)) for side in SIDES}):
        for top in range(rows - side[0] + 1):
            for left in range(columns - side[1] + 1):
                square = np.zeros((rows, columns), np.bool_)
                square[top : top + side[0], left : left + side[1]] = True
                squares.append(square)
    return np.stack(squares)


def painted_over(picture: Image.Image, patches_MRC: np.ndarray) -> list[Image.Image]:
    """The picture M times, each time with some patches in its mean colour: RGB."""
    pixels = np.asarray(picture.convert("RGB"))
    mean = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    _, rows, columns = patches_MRC.shape
    row_H = np.arange(pixels.shape[0]) * rows // pixels.shape[0]
    column_W = np.arange(pixels.shape[1]) * columns // pixels.shape[1]
    painted = []
    for patches_RC in patches_MRC:
        copy = pixels.copy()
        copy[patches_RC[row_H][:, column_W]] = mean
        painted.append(Image.fromarray(copy))
    return painted


def occlusion_map(picture: Image.Image, score: Scorer) -> tuple[float, HeatMap]:
    """The picture's score, and what it loses without each place.

    Args:
        picture: RGB.
        score: is asked for at most 32 pictures at a time.
    """
    squares_SRC = squares_over(*grid_of(*picture.size))
    whole = float(score([picture])[0])
    lost_S = whole - np.concatenate(
        [score(painted_over(picture, squares_SRC[at : at + _AT_ONCE])) for at in range(0, len(squares_SRC), _AT_ONCE)]
    )
    square_SP = squares_SRC.reshape(len(squares_SRC), -1).astype(np.float64)
    effect_P = np.linalg.solve(square_SP.T @ square_SP + _SHRINKAGE * np.eye(square_SP.shape[1]), square_SP.T @ lost_S)
    effect_RC = effect_P.reshape(squares_SRC.shape[1:])
    return whole, HeatMap(tuple(tuple(float(effect) for effect in row) for row in effect_RC))
