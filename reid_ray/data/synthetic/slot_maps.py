"""Label maps of synthetic people: which pixels of a picture show a person's hair, garments, shoes, bag and hat.

Knows which parts make up a slot; not how they are painted (body.py, canvas.py). A pixel is a slot's as soon as the slot has any share
in it: outside of a slot's mask, a picture does not depend on what is worn there, but for the camera's blur.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reid_ray.data.bit_masks import segment_of
from reid_ray.data.synthetic.body import PARTS
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.data.synthetic.traits import NONE
from reid_ray.records import IDENTITY_COLUMNS

# Places are codes of label maps; 0 is all else, skin, background and what stands before the person included.
LABELS = ("other", *SLOTS)
_PARTS_OF = {
    "hair": {"hair"},
    "upper": {"upper", "sleeve", "pattern", "inner", "detail"},
    "lower": {"lower", "lower_far", "lower_light"},
    "shoes": {"shoes", "sole"},
    "bag": {"bag", "strap"},
    "hat": {"hat", "brim"},
}
_LABEL_OF_PART = np.array([next((LABELS.index(slot) for slot, parts in _PARTS_OF.items() if part in parts), 0) for part in PARTS], np.uint8)


def slot_shares(part_NHW: np.ndarray, oversample: int) -> np.ndarray:
    """How many of the oversample^2 points of each pixel a slot has: uint8 [N, slots, height, width], slots as in sentences.SLOTS.

    Args:
        part_NHW: codes of body.PARTS, [N, oversample * height, oversample * width] (Scene.parts).
        oversample: points of a pixel in a row.
    """
    label_NHW = _LABEL_OF_PART[part_NHW]
    count, height, width = label_NHW.shape
    points = label_NHW.reshape(count, height // oversample, oversample, width // oversample, oversample)
    return np.stack([(points == label).sum(axis=(2, 4), dtype=np.uint8) for label in range(1, len(LABELS))], axis=1)


def label_maps(share_NSHW: np.ndarray) -> np.ndarray:
    """uint8 [N, height, width], codes of LABELS: the slot with the largest share in a pixel, the first of equals; 0 where none has any."""
    return np.where(share_NSHW.any(axis=1), share_NSHW.argmax(axis=1) + 1, 0).astype(np.uint8)


def segment_row(image: Mapping[str, Any], slot: str, mask_HW: np.ndarray, attributes: Mapping[str, str]) -> dict[str, Any]:
    """A row of SEGMENTS: what is known of a slot on an image.

    Args:
        image: its row of IMAGES.
        slot: one of sentences.SLOTS.
        mask_HW: bool [height, width].
        attributes: the person's.
    """
    row = {name: image[name] for name in ("image_id", "image_sha256", *IDENTITY_COLUMNS)} | {"slot": slot, "source": "truth"}
    if attributes[slot] == NONE:
        return {**row, "status": "absent", "reason": "not_worn"}
    if not mask_HW.any():
        return {**row, "status": "absent", "reason": "out_of_sight"}
    return {**row, "status": "ok", **segment_of(mask_HW)}
