"""Tracks: which boxes of following frames are one person's, by their overlap or by ByteTrack. One tracker goes through one stretch.

Knows boxes and seconds; not pictures. The overlap is that of a box with where its track is expected by now: the last box, moved on at
the speed of the last second. ByteTrack (Zhang et al., 2022) is that of the package trackers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reid_ray.crop.config import TrackerConfig
from reid_ray.crop.spotted import Spotted, overlaps
from reid_ray.errors import ResourceError

_STRONGER = 0.1
_MEMORY_S = 1.0  # of a track's boxes that tell its speed


class Tracker(Protocol):
    """What follows people."""

    def follow(self, boxes: Spotted, seconds: float) -> list[int | None]:
        """The track of each box of the next frame, numbered from 0; None: of no track yet."""


def open_tracker(config: TrackerConfig, *, rate: float, least_score: float) -> Tracker:
    """The tracker of a configuration.

    Args:
        config: which.
        rate: frames a second.
        least_score: of a box; ByteTrack begins a track with one that is a little better.

    Raises:
        ResourceError: its package is not installed.
    """
    return OverlapTracker(config) if config.kind == "iou" else ByteTracker(config, rate=rate, strong=least_score + _STRONGER)


@dataclass
class _Track:
    number: int
    past: list[tuple[float, np.ndarray]] = field(default_factory=list)

    def add(self, seconds: float, box_4: np.ndarray) -> None:
        """Its next box."""
        self.past = [each for each in self.past if seconds - each[0] <= _MEMORY_S] + [(seconds, box_4)]

    def expected(self, seconds: float) -> np.ndarray:
        """Where it is by now, float32 [4]: its place moves on, its size does not change."""
        (first_s, first_4), (last_s, last_4) = self.past[0], self.past[-1]
        if last_s <= first_s:
            return last_4
        speed_4 = np.tile((last_4 - first_4).reshape(2, 2).mean(axis=0), 2) / (last_s - first_s)
        return last_4 + speed_4 * (seconds - last_s)


class OverlapTracker:
    """Boxes go to tracks so that their overlaps with where the tracks are expected add up to the most."""

    def __init__(self, config: TrackerConfig) -> None:
        self._min_overlap, self._patience_s = config.min_overlap, config.patience_s
        self._tracks: list[_Track] = []
        self._next = 0

    def follow(self, boxes: Spotted, seconds: float) -> list[int | None]:
        """As Tracker."""
        from scipy.optimize import linear_sum_assignment

        self._tracks = [track for track in self._tracks if seconds - track.past[-1][0] <= self._patience_s + 1e-6]
        numbers: list[int | None] = [None] * len(boxes)
        if self._tracks and len(boxes):
            expected_T4 = np.stack([track.expected(seconds) for track in self._tracks])
            overlap_TN = overlaps(expected_T4, boxes.box_N4)
            overlap_TN[overlap_TN < self._min_overlap] = 0
            for place, box in zip(*linear_sum_assignment(overlap_TN, maximize=True), strict=True):
                if overlap_TN[place, box] > 0:
                    self._tracks[place].add(seconds, boxes.box_N4[box])
                    numbers[box] = self._tracks[place].number
        for box, number in enumerate(numbers):
            if number is None:
                self._tracks.append(_Track(self._next, [(seconds, boxes.box_N4[box])]))
                numbers[box] = self._next
                self._next += 1
        return numbers


class ByteTracker:
    """ByteTrack of the package trackers, whose answers are put into the boxes' order."""

    def __init__(self, config: TrackerConfig, *, rate: float, strong: float) -> None:
        made = require_bytetrack()
        self._detections: Callable[..., Any] = made[1]
        # Its patience is told in thirtieths of a second.
        self._tracker = made[0](
            lost_track_buffer=max(1, round(config.patience_s * 30)),
            frame_rate=rate,
            track_activation_threshold=strong,
            high_conf_det_threshold=strong,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=config.min_overlap,
        )
        self._numbers: dict[int, int] = {}

    def follow(self, boxes: Spotted, seconds: float) -> list[int | None]:
        """As Tracker."""
        count = len(boxes)
        found = self._detections(
            xyxy=boxes.box_N4.astype(np.float64).reshape(-1, 4),
            confidence=boxes.score_N.astype(np.float64),
            class_id=np.zeros(count, int),
            data={"place": np.arange(count)},
        )
        answer = self._tracker.update(found)
        numbers: list[int | None] = [None] * count
        if len(answer):
            for place, number in zip(answer.data["place"].tolist(), np.asarray(answer.tracker_id).tolist(), strict=True):
                if number >= 0:
                    numbers[int(place)] = self._numbers.setdefault(int(number), len(self._numbers))
        return numbers


def require_bytetrack() -> tuple[Any, Any]:
    """ByteTrack's class and that of its detections.

    Raises:
        ResourceError: the package trackers is not installed.
    """
    try:
        from supervision import Detections
        from trackers import ByteTrackTracker
    except ImportError:
        raise ResourceError("tracker.kind: bytetrack needs the package trackers; install the extra video, or set kind to iou") from None
    return ByteTrackTracker, Detections
