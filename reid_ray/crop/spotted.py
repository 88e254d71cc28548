"""People on a frame: boxes with scores, whoever found them, and how much two boxes share. Knows numbers; not pictures, time or tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Spotted:
    """People of one frame: left, top, right, bottom in pixels, float32 [N, 4], within the frame; scores, float32 [N], the best first."""

    box_N4: np.ndarray
    score_N: np.ndarray

    def __len__(self) -> int:
        """How many."""
        return len(self.score_N)


class PersonDetector(Protocol):
    """What finds people."""

    name: str
    revision: str | None

    def people(self, pictures: Sequence[np.ndarray]) -> list[Spotted]:
        """Of each uint8 RGB [H, W, 3] its people."""


def best_boxes(box_N4: np.ndarray, score_N: np.ndarray, size: tuple[int, int], max_overlap: float) -> Spotted:
    """Boxes cut to a frame of `size` (width, height); of two that overlap by more than max_overlap the one of the better score."""
    width, height = size
    box_N4 = np.clip(box_N4, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)
    sound_N = (box_N4[:, 2] - box_N4[:, 0] >= 1) & (box_N4[:, 3] - box_N4[:, 1] >= 1) & np.isfinite(score_N)
    box_N4, score_N = box_N4[sound_N], score_N[sound_N].astype(np.float32)
    order_N = np.argsort(-score_N, kind="stable")
    box_N4, score_N = box_N4[order_N], score_N[order_N]
    overlap_NN = overlaps(box_N4, box_N4)
    kept: list[int] = []
    for place in range(len(score_N)):
        if not kept or overlap_NN[place, kept].max() <= max_overlap:
            kept.append(place)
    return Spotted(box_N4[kept], score_N[kept])


def overlaps(box_N4: np.ndarray, other_M4: np.ndarray) -> np.ndarray:
    """Intersection over union of each box with each other one: float32 [N, M]."""
    low_NM2 = np.maximum(box_N4[:, None, :2], other_M4[None, :, :2])
    high_NM2 = np.minimum(box_N4[:, None, 2:], other_M4[None, :, 2:])
    shared_NM = np.clip(high_NM2 - low_NM2, 0, None).prod(axis=2)
    area_N, area_M = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (box_N4, other_M4))
    return shared_NM / np.maximum(area_N[:, None] + area_M[None] - shared_NM, 1e-9)
