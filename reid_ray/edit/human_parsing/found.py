"""Batches of images -> rows of SEGMENTS, one for each image and slot; the work of the parsing actors, without Ray.

Knows tables and pictures; not which model parses (parsed.py), nor captions (linked.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from reid_ray.config.common import PoolConfig
from reid_ray.data.bit_masks import segment_of
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.pieces import UNREAD
from reid_ray.edit.human_parsing.config import HumanParserConfig, MaskRefinerConfig
from reid_ray.edit.human_parsing.parsed import HumanParser, MaskRefiner
from reid_ray.records import IDENTITY_COLUMNS, SEGMENTS, table_of


class SegmentFinder:
    """SOURCED tables -> SEGMENTS tables: len(slots) rows for each image, in the slots' order.

    Args:
        parser: gives each picture's masks.
        refiner: redraws them; None keeps them.
        slots: to look for.
        min_area: share of the picture below which a slot is absent.
        max_pixels: an image whose header claims more is failed.
    """

    def __init__(self, parser: HumanParser, refiner: MaskRefiner | None, *, slots: Sequence[str], min_area: float, max_pixels: int) -> None:
        self._parser, self._refiner, self._slots = parser, refiner, tuple(slots)
        self._min_area, self._max_pixels = min_area, max_pixels
        self._source = parser.name if refiner is None else f"{parser.name}, {refiner.name}"
        self._revision = parser.revision if refiner is None else f"{parser.revision}, {refiner.revision}"

    def __call__(self, images: pa.Table) -> pa.Table:
        """Parse a batch. Reasons: those of decode_image, no_pixels (a slot that the picture does not show, or hardly)."""
        rows = images.to_pylist()
        pictures: dict[int, Image.Image] = {}
        reasons: dict[int, str] = {}
        for place, row in enumerate(rows):
            try:
                pictures[place] = decode_image(row["image"], max_pixels=self._max_pixels, unread=row.get(UNREAD.name))
            except BadImageError as error:
                reasons[place] = str(error)
        masks = dict(zip(pictures, self._parser.masks(list(pictures.values())), strict=True))
        if self._refiner is not None:
            masks = {place: self._refiner.refined(pictures[place], found) for place, found in masks.items()}
        return table_of(
            SEGMENTS,
            [self._row(row, slot, masks.get(place), reasons.get(place)) for place, row in enumerate(rows) for slot in self._slots],
        )

    def _row(self, image: Mapping[str, Any], slot: str, masks: Mapping[str, np.ndarray] | None, why: str | None) -> dict[str, Any]:
        row = {name: image[name] for name in ("image_id", "image_sha256", *IDENTITY_COLUMNS)}
        row |= {"slot": slot, "source": self._source, "revision": self._revision}
        if masks is None:
            return {**row, "status": "failed", "reason": why}
        mask_HW = masks.get(slot)
        if mask_HW is None or mask_HW.mean() < self._min_area:
            return {**row, "status": "absent", "reason": "no_pixels"}
        return {**row, "status": "ok", **segment_of(mask_HW)}


class SegmentActor:
    """The Ray Data actor round a SegmentFinder: loads the models once, one thread for each of its CPUs."""

    def __init__(self, parser: HumanParserConfig, refiner: MaskRefinerConfig | None, pool: PoolConfig, **options: Any) -> None:
        import torch

        torch.set_num_threads(max(1, int(pool.num_cpus)))
        device = "cuda:0" if pool.num_gpus else "cpu"
        refining = None if refiner is None else MaskRefiner.open(refiner, device=device)
        self._find = SegmentFinder(HumanParser.open(parser, device=device), refining, **options)

    def __call__(self, images: pa.Table) -> pa.Table:
        """As SegmentFinder."""
        return self._find(images)
