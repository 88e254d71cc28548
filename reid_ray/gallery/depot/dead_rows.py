"""Dead rows of a segment in a file: a bit for each row, outside the segment, which never changes."""

from __future__ import annotations

import uuid
from io import BytesIO

import numpy as np

from reid_ray.errors import DataError
from reid_ray.gallery.depot.interface import Depot
from reid_ray.gallery.manifest import DEAD, SegmentEntry
from reid_ray.gallery.sealed.arrays import array_of_bytes
from reid_ray.gallery.sealed.segment import SegmentFacts


def alive_rows(depot: Depot, dead: str | None, rows: int) -> np.ndarray:
    """Which rows of a segment live: bool [N].

    Raises:
        FileNotFoundError: the file is gone: there is a newer generation.
        DataError: it does not fit the segment.
    """
    if dead is None:
        return np.ones(rows, np.bool_)
    packed = array_of_bytes(depot.read(f"{DEAD}/{dead}"))
    if len(packed) != (rows + 7) // 8:
        raise DataError(f"{depot}/{DEAD}/{dead}: does not fit a segment of {rows} items; restore the gallery from a snapshot or a copy")
    return ~np.unpackbits(packed, count=rows, bitorder="little").astype(np.bool_)


def entry_of(depot: Depot, facts: SegmentFacts, alive_N: np.ndarray) -> SegmentEntry:
    """A segment with its dead rows, these kept."""
    if alive_N.all():
        return SegmentEntry(facts, None)
    name = f"{facts.name}-{uuid.uuid4().hex[:8]}.npy"
    file = BytesIO()
    np.save(file, np.packbits(~alive_N, bitorder="little"))
    depot.write(f"{DEAD}/{name}", file.getvalue())
    return SegmentEntry(facts, name)
