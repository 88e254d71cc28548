"""One reference: a thing cut out of a picture by its mask, RGBA, with nothing left of what was round it.

Knows pixels. What an editor sees in the place of the surroundings, noise, is made when it is used.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from reid_ray.data.bit_masks import box_of
from reid_ray.data.images import BadImageError


def cut_out(picture_HW3: np.ndarray, mask_HW: np.ndarray, *, min_side: int, max_side: int) -> np.ndarray:
    """The thing under a mask, in the mask's box: uint8 [h, w, 4], alpha 255 where it is, all zeros elsewhere.

    Args:
        picture_HW3: uint8.
        mask_HW: bool.
        min_side: pixels that either side has at least.
        max_side: a longer side is scaled down to it.

    Raises:
        BadImageError: too_little (an empty mask, or a box smaller than min_side).
    """
    box = box_of(mask_HW)
    if box is None or min(box.right - box.left, box.bottom - box.top) < min_side:
        seen = "nothing" if box is None else f"{box.right - box.left} x {box.bottom - box.top}"
        raise BadImageError("too_little", f"{seen} of it shows; min_side is {min_side}")
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    picture, mask = picture_HW3[rows, columns], mask_HW[rows, columns]
    scale = max_side / max(mask.shape)
    if scale < 1:
        size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
        # What is round the thing must not bleed into its rim.
        filled = np.where(mask[..., None], picture, picture[mask].mean(axis=0).astype(np.uint8))
        picture = np.asarray(Image.fromarray(filled).resize(size, Image.Resampling.BOX))
        mask = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) >= 128
    return np.concatenate([np.where(mask[..., None], picture, 0), mask[..., None] * 255], axis=-1, dtype=np.uint8, casting="unsafe")


def reference_id(slot: str, thing_HW4: np.ndarray) -> str:
    """32 hex digits of slot, size and pixels: the same thing cut out of another file of the same picture has the same."""
    digest = hashlib.sha256(f"{slot} {thing_HW4.shape[0]} {thing_HW4.shape[1]} ".encode())
    digest.update(np.ascontiguousarray(thing_HW4).tobytes())
    return digest.hexdigest()[:32]


def encode_reference(thing_HW4: np.ndarray) -> bytes:
    """As PNG."""
    file = io.BytesIO()
    Image.fromarray(thing_HW4, "RGBA").save(file, format="PNG")
    return file.getvalue()


def decode_reference(data: bytes) -> np.ndarray:
    """A reference's PNG as uint8 [h, w, 4]."""
    return np.asarray(Image.open(io.BytesIO(data), formats=("PNG",)).convert("RGBA"))
