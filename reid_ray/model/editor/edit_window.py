"""The window that an editor works in: a crop round the mask at the model's own size, and its way back into the picture.

A person's shoes are a handful of pixels of a crop; the model sees them as large as a coat. Knows arrays and Pillow; no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Window:
    """A rectangle in pixels of a picture; it may reach beyond, where the picture's edge is repeated. right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def window_round(mask: np.ndarray, *, size: tuple[int, int], padding: float | None) -> Window:
    """The window of a mask, bool [H, W].

    Args:
        mask: at least one pixel is set.
        size: (height, width) of the model; the window has its proportions, and at least half its pixels a side.
        padding: of the mask's box on every side, as a share of its longer side; None takes the whole picture, whatever its proportions.
    """
    if padding is None:
        return Window(0, 0, mask.shape[1], mask.shape[0])
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    rim = padding * max(bottom - top, right - left)
    scale = max((bottom - top + 2 * rim) / size[0], (right - left + 2 * rim) / size[1], 0.5)
    height, width = round(scale * size[0]), round(scale * size[1])
    left, top = (left + right - width) // 2, (top + bottom - height) // 2
    return Window(left, top, left + width, top + height)


def cut_out(picture: np.ndarray, window: Window, *, size: tuple[int, int]) -> np.ndarray:
    """The window's pixels, uint8 [size, 3]."""
    height, width = picture.shape[:2]
    if window.top >= 0 and window.left >= 0 and window.bottom <= height and window.right <= width:
        return resized(picture[window.top : window.bottom, window.left : window.right], size)
    return resized(picture[_repeated(window.top, window.bottom, height)[:, None], _repeated(window.left, window.right, width)], size)


def cut_mask(mask: np.ndarray, window: Window, *, size: tuple[int, int], grow: int = 0) -> np.ndarray:
    """The window's mask, bool [size]: every pixel that a set one touches, and `grow` pixels round them.

    Beyond the picture nothing is set.
    """
    height, width = mask.shape
    inside = np.zeros((window.bottom - window.top, window.right - window.left), bool)
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.bottom, height), min(window.right, width)
    inside[top - window.top : bottom - window.top, left - window.left : right - window.left] = mask[top:bottom, left:right]
    picture = Image.fromarray(inside.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BOX)
    grown = np.asarray(picture) > 0
    for axis in (0, 1):
        grown = _grown(grown, grow, axis)
    return grown


def put_back(picture: np.ndarray, drawn: np.ndarray, window: Window, mask: np.ndarray) -> np.ndarray:
    """The picture with the window's new pixels where `mask` is set, and its own everywhere else.

    Args:
        picture: uint8 [H, W, 3].
        drawn: uint8 [h, w, 3], the window as the model drew it.
        window: where that lies.
        mask: bool [H, W].
    """
    back = resized(drawn, (window.bottom - window.top, window.right - window.left))
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.bottom, picture.shape[0]), min(window.right, picture.shape[1])
    edited = picture.copy()
    inside = back[top - window.top : bottom - window.top, left - window.left : right - window.left]
    np.copyto(edited[top:bottom, left:right], inside, where=mask[top:bottom, left:right, None])
    return edited


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [h, w, 3] -> [size, 3], bicubic, averaged where it shrinks."""
    if picture.shape[:2] == tuple(size):
        return np.ascontiguousarray(picture)
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))


def _grown(mask: np.ndarray, pixels: int, axis: int) -> np.ndarray:
    """What is set, and `pixels` on either side along an axis."""
    grown = mask.copy()
    seen, to = np.moveaxis(mask, axis, 0), np.moveaxis(grown, axis, 0)
    for away in range(1, min(pixels, len(seen) - 1) + 1):
        to[away:] |= seen[:-away]
        to[:-away] |= seen[away:]
    return grown


def _repeated(start: int, stop: int, length: int) -> np.ndarray:
    """Rows or columns of a stretch, those beyond the picture replaced by its first or last."""
    return np.clip(np.arange(start, stop), 0, length - 1)
