"""Masks of an image's pixels as PNG of one bit a pixel: written, read, and the box and share of the image that they cover.

Knows bits; not what a mask is of.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from reid_ray.data.images import BadImageError, open_checked


class Box(NamedTuple):
    """A rectangle in pixels, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def encode_mask(mask_HW: np.ndarray) -> bytes:
    """Mask (bool [H, W]) to PNG."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(mask_HW, dtype=bool)).save(file, format="PNG")
    return file.getvalue()


def decode_mask(data: bytes | None, *, width: int, height: int) -> np.ndarray:
    """The mask of an image of this size, bool [H, W]; what is not black is in it.

    Raises:
        BadImageError: `mask_unreadable` if it is no picture, `mask_size` if it is of another size.
    """
    try:
        picture = open_checked(data)
        if picture.size != (width, height):
            raise BadImageError("mask_size", f"{picture.size[0]} x {picture.size[1]}, the image is {width} x {height}")
        return np.asarray(picture.convert("L")) > 0
    except BadImageError as error:
        raise error if error.reason == "mask_size" else BadImageError("mask_unreadable", str(error)) from None


def box_of(mask_HW: np.ndarray) -> Box | None:
    """The smallest box around a mask; None around an empty one."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def segment_of(mask_HW: np.ndarray) -> dict[str, object]:
    """The columns mask, box and area of SEGMENTS for a mask that is not empty."""
    return {"mask": encode_mask(mask_HW), "box": list(box_of(mask_HW) or ()), "area": float(mask_HW.mean())}
