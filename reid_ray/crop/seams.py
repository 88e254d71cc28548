"""Seams: the tracks of a footage's stretches, one after the other, joined into the footage's tracks.

Two neighbours both looked at some seconds, so a person there has a track in each, of the same boxes. Only tracks that may go on are
held: those of the seam. Knows tables of stretches; not pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from reid_ray.crop.best_crops import BestCrops, Row
from reid_ray.crop.spotted import overlaps
from reid_ray.crop.stretch_work import FOUND, Sighting, StretchAccount

_SAME = 0.5  # intersection over union of one person's boxes on one frame


@dataclass
class JoinedTrack:
    """A track of a footage: its number, boxes so far, and the crops that are kept."""

    number: int
    length: int = 0
    rows: list[Row] = field(default_factory=list)


def joined(tables: Iterable[pa.Table], *, most: int | None, span_s: float) -> Iterator[tuple[list[JoinedTrack], StretchAccount]]:
    """For each table of a footage's stretches in their order: the tracks that are through by then, and what it told.

    Tracks are numbered in the order in which they begin.
    """
    open_: dict[int, JoinedTrack] = {}  # by the number in the stretch before
    tail: Sequence[Sighting] = ()
    count = 0
    for table in tables:
        found = StretchAccount.unpacked(table.schema.metadata[FOUND])
        goes_on = same_tracks(tail, found.head)
        rows: dict[int, list[Row]] = defaultdict(list)
        for row in table.to_pylist():
            rows[row["track"]].append(row)
        here: dict[int, JoinedTrack] = {}
        for number, length in sorted(found.lengths.items()):
            track = open_.pop(goes_on[number], None) if number in goes_on else None
            if track is None:
                track, count = JoinedTrack(count), count + 1
            track.length += length
            track.rows = _best([*track.rows, *rows[number]], most, span_s)
            here[number] = track
        through = [*open_.values()]
        tail = found.tail
        going = {number for _, number, _ in tail}
        through += [track for number, track in here.items() if number not in going]
        open_ = {number: track for number, track in here.items() if number in going}
        yield sorted(through, key=lambda track: track.number), found
    if open_:
        yield sorted(open_.values(), key=lambda track: track.number), StretchAccount()


def same_tracks(before: Sequence[Sighting], after: Sequence[Sighting]) -> dict[int, int]:
    """JoinedTrack after the seam -> track before it: pairs that have the most boxes in common, each track in one pair at most."""
    shared: dict[tuple[int, int], int] = defaultdict(int)
    seen = defaultdict(list)
    for frame, track, box in before:
        seen[frame].append((track, box))
    for frame, track, box in after:
        for other, other_box in seen[frame]:
            if overlaps(np.array([box]), np.array([other_box]))[0, 0] >= _SAME:
                shared[track, other] += 1
    pairs: dict[int, int] = {}
    for (track, other), _ in sorted(shared.items(), key=lambda item: (-item[1], item[0])):
        if track not in pairs and other not in pairs.values():
            pairs[track] = other
    return pairs


def _best(rows: list[Row], most: int | None, span_s: float) -> list[Row]:
    best = BestCrops(most, span_s=span_s)
    best.offer_rows(0, rows)
    return best.of(0)
