"""Steps from one generation to the next: sealed segments, dead rows, and what they are made of.

Order: segment, dead rows and an empty log before the manifest that names them; the manifest before it counts; only then what the older
generation alone needed goes. Killed anywhere, the older generation or the newer one is there, and litter that is cleared when the gallery
is next opened for writing. Where that lies is depot/'s; who may write is gallery_writer.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from reid_ray.errors import DataError
from reid_ray.gallery.depot.interface import Depot, depot_of
from reid_ray.gallery.items import Items
from reid_ray.gallery.manifest import Manifest
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.segment import Segment, SegmentFacts, write_segment
from reid_ray.progress import ProgressBar

_BATCH_ROWS = 8_192


def newest_generation(folder: str | Path) -> int:
    """The number of the generation that counts at a place; 0 where no gallery is, or one that cannot be read."""
    depot = depot_of(folder, private=False)
    try:
        return depot.manifest(depot.current()).number if depot.exists() else 0
    except DataError:
        return 0
    finally:
        depot.close()


def new_segment(depot: Depot, batches: Iterable[Items], rows: int, manifest: Manifest, schema: pa.Schema) -> SegmentFacts | None:
    """Seal items as a segment of the gallery at `depot`, and verify it; None if there are none.

    Raises:
        DataError: what was read back is not what was written.
    """
    if not rows:
        return None
    place = depot.new_segment()
    facts = write_segment(place, batches, rows=rows, dim=manifest.dim, config=manifest.config, schema=schema)
    segment = Segment.open(place, facts)
    if faults := segment.faults():
        raise DataError(faults[0])
    segment.close()
    depot.keep_segment(facts)
    return facts


def living_batches(parts: Sequence[LivePart], rows: Sequence[np.ndarray], bar: ProgressBar | None = None) -> Iterator[Items]:
    """Items of parts, those rows of each, in batches; told to `bar` once whoever takes them asks for the next."""
    for part, row_N in zip(parts, rows, strict=True):
        for start in range(0, len(row_N), _BATCH_ROWS):
            taken_N = row_N[start : start + _BATCH_ROWS]
            yield part.source.items(taken_N)
            if bar is not None:
                bar.update(len(taken_N))
