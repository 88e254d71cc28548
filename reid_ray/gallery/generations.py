"""Steps from one generation to the next: sealed segments, dead rows, the swap, and clearing what is not used any more.

Order on the disk: segment, dead rows and an empty log before the manifest that names them; the manifest before CURRENT; only then what
the older generation alone needed goes. Killed anywhere, the older generation or the newer one is there, and litter that is cleared when
the gallery is next opened for writing. Knows files; who may write is gallery_writer.py's.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from reid_ray.errors import DataError
from reid_ray.gallery.gallery_view import LivePart
from reid_ray.gallery.items import Items
from reid_ray.gallery.manifest import (
    CURRENT,
    DEAD,
    GENERATIONS,
    LOGS,
    RECEIPTS,
    SEGMENTS,
    SNAPSHOTS,
    Manifest,
    SegmentEntry,
    manifest_name,
    read_manifest,
    swap_current,
    write_manifest,
)
from reid_ray.gallery.sealed.segment import Segment, SegmentFacts, write_segment
from reid_ray.storage.files import sync, write_durably

_BATCH_ROWS = 8_192


def new_segment(folder: Path, batches: Iterable[Items], rows: int, manifest: Manifest, schema: pa.Schema) -> SegmentFacts | None:
    """Seal items as a segment of the gallery in `folder`, and verify it; None if there are none.

    Raises:
        DataError: what was read back is not what was written.
    """
    if not rows:
        return None
    place = folder / SEGMENTS / uuid.uuid4().hex[:16]
    place.mkdir()
    facts = write_segment(place, batches, rows=rows, dim=manifest.dim, config=manifest.config, schema=schema)
    sync(place.parent)
    segment = Segment.open(place, facts)
    if faults := segment.faults():
        raise DataError(faults[0])
    segment.close()
    return facts


def entry_of(folder: Path, facts: SegmentFacts, alive_N: np.ndarray) -> SegmentEntry:
    """A segment with its dead rows, these on the disk."""
    if alive_N.all():
        return SegmentEntry(facts, None)
    name = f"{facts.name}-{uuid.uuid4().hex[:8]}.npy"
    packed = np.packbits(~alive_N, bitorder="little")

    def write(hidden: Path) -> None:
        with hidden.open("wb") as file:
            np.save(file, packed)

    write_durably(folder / DEAD / name, write)
    return SegmentEntry(facts, name)


def swap(folder: Path, following: Manifest) -> None:
    """Make the next generation current; its segments, dead rows and log are on the disk."""
    write_manifest(folder / GENERATIONS / manifest_name(following.number), following)
    swap_current(folder, manifest_name(following.number))


def clear(folder: Path, current: Manifest) -> None:
    """Remove what neither the current generation nor a snapshot needs."""
    for hidden in (*folder.glob(f".{CURRENT}.*"), *(folder / SNAPSHOTS).glob(".*"), *(folder / RECEIPTS).glob(".*.json.*")):
        hidden.unlink()
    kept = [current, *snapshot_manifests(folder).values()]
    _keep_only(folder / GENERATIONS, {manifest_name(current.number)})
    _keep_only(folder / LOGS, {current.log})
    _keep_only(folder / SEGMENTS, {entry.facts.name for manifest in kept for entry in manifest.segments})
    _keep_only(folder / DEAD, {entry.dead for manifest in kept for entry in manifest.segments if entry.dead is not None})


def snapshot_manifests(folder: Path) -> dict[str, Manifest]:
    """The manifests of a gallery's snapshots, by name."""
    return {path.stem: read_manifest(path) for path in sorted((folder / SNAPSHOTS).glob("[!.]*.json"))}


def living_batches(parts: Sequence[LivePart], rows: Sequence[np.ndarray]) -> Iterator[Items]:
    """Items of parts, those rows of each, in batches."""
    for part, row_N in zip(parts, rows, strict=True):
        for start in range(0, len(row_N), _BATCH_ROWS):
            yield part.source.items(row_N[start : start + _BATCH_ROWS])


def _keep_only(folder: Path, names: set[str]) -> None:
    for entry in list(os.scandir(folder)):
        if entry.name in names:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    sync(folder)
