"""Adoption: segments that were sealed elsewhere become those of a gallery, in one generation, a later item in place of an earlier one.

Which items are replaced is found by the sorted hashes of ids that every segment has, one range of hashes after the other: neither ids nor
vectors are held whole. Steps on the disk alone; who may write is gallery_writer.py's.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from reid_ray.gallery.bulk.erased_since import ErasedSince
from reid_ray.gallery.bulk.sealed_piece import PiecesGoneError, SealedPiece
from reid_ray.gallery.depot.dead_rows import entry_of
from reid_ray.gallery.depot.interface import Depot
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.items import ID, merged_schema
from reid_ray.gallery.manifest import SEGMENTS, SegmentEntry
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.id_lookup import first_place
from reid_ray.gallery.sealed.segment import Segment

_IDS_READ = 65_536
_IDS_AT_ONCE = 1 << 20  # hashes that are compared at a time: 40 MB


@dataclass(frozen=True)
class Adoption:
    """What a gallery becomes by taking pieces in.

    entries: its segments, those of the pieces last, in their order.
    schema: its columns.
    living: items of the pieces that live.
    replaced: rows of the pieces in whose place a later one of the same id lives.
    replaced_before: items that the gallery had, and has another of the same id in the place of.
    erased: ids of the pieces that do not live, since they were erased while the pieces were made.
    """

    entries: tuple[SegmentEntry, ...]
    schema: pa.Schema
    living: int
    replaced: int
    replaced_before: int
    erased: tuple[str, ...] = ()


def adopted(depot: Depot, view: GalleryView, pieces: Path, sealed: Sequence[SealedPiece], erased: ErasedSince | None = None) -> Adoption:
    """Move the segments of pieces into the gallery at `depot`, and say what its next generation is. Its log holds nothing.

    Args:
        depot: the gallery's.
        view: of its present generation.
        pieces: folder of the pieces; from another file system than the gallery's they are copied.
        sealed: the pieces, the oldest first.
        erased: who was erased since they were begun, and is not to live again.

    Raises:
        DataError: a column has another type than in the gallery, or a segment is damaged; nothing has changed then.
        PiecesGoneError: a segment is not there any more.
    """
    schema = view.schema
    for piece in sealed:
        schema = merged_schema(schema, piece.schema, origin=f"piece {piece.name}")
    there = [LivePart(part.source, part.alive.copy()) for part in view.parts()[:-1]]
    taken = [piece.facts for piece in sealed if piece.facts is not None]
    try:
        new = [LivePart(Segment.open(pieces / facts.name, facts), np.ones(facts.rows, np.bool_)) for facts in taken]
    except FileNotFoundError as error:
        raise PiecesGoneError(f"{error}: is gone, since an erasure was carried out meanwhile or somebody removed it; run again") from None
    gone = [each for part in new for each in _kill_erased(part, erased, view)] if erased is not None and erased.is_anybody(view) else []
    parts = [*there, *new]
    dead = [0] * len(parts)
    for at, row_N in replaced_rows(parts):
        parts[at].kill(row_N)
        dead[at] += len(row_N)
    for part, facts in zip(new, taken, strict=True):
        assert isinstance(part.source, Segment)
        part.source.close()
        shutil.move(pieces / facts.name, depot.folder / SEGMENTS / facts.name)
        depot.keep_segment(facts)
    entries = []
    for part in parts:
        assert isinstance(part.source, Segment)
        entries.append(entry_of(depot, part.source.facts, part.alive))
    replaced = sum(dead[len(there) :])
    living = sum(len(part) for part in new)
    return Adoption(tuple(entries), schema, living, replaced, sum(dead[: len(there)]), tuple(gone))


def _kill_erased(part: LivePart, erased: ErasedSince, view: GalleryView) -> list[str]:
    """Have the rows dead that were erased since; their ids."""
    found: list[str] = []
    for start in range(0, len(part.source), _IDS_READ):
        assert isinstance(part.source, Segment)
        ids = part.source.rows[ID].slice(start, _IDS_READ).to_pylist()
        if gone := erased.among(view, ids):
            part.kill(start + np.flatnonzero([each in gone for each in ids]))
            found += sorted(gone)
    return found


def replaced_rows(parts: Sequence[LivePart]) -> list[tuple[int, np.ndarray]]:
    """(number of a part, its living rows whose ids a later part has, too), part by part and range by range. Parts are segments."""
    segments = [part.source for part in parts if isinstance(part.source, Segment)]
    if not segments:
        return []
    total = sum(map(len, segments))
    ranges = max(1, -(-total // _IDS_AT_ONCE))
    bounds = [[first_place(segment.lookup, (number << 64) // ranges) for number in range(ranges + 1)] for segment in segments]
    found: list[tuple[int, np.ndarray]] = []
    for number in range(ranges):
        found += _replaced_in_range(parts, segments, [(each[number], each[number + 1]) for each in bounds])
    return found


def _replaced_in_range(
    parts: Sequence[LivePart], segments: Sequence[Segment], spans: Sequence[tuple[int, int]]
) -> list[tuple[int, np.ndarray]]:
    hashes, rows, numbers = [], [], []
    for at, (segment, (start, stop)) in enumerate(zip(segments, spans, strict=True)):
        slice_M = segment.lookup[start:stop]
        living = parts[at].alive[slice_M["row"]]
        hashes.append(slice_M["hash"][living])
        rows.append(slice_M["row"][living])
        numbers.append(np.full(len(rows[-1]), at, np.int32))
    hash_M, row_M, number_M = np.concatenate(hashes), np.concatenate(rows), np.concatenate(numbers)
    order = np.argsort(hash_M, kind="stable")  # equal hashes stay in the order of their parts
    same = hash_M[order][1:] == hash_M[order][:-1]
    if not same.any():
        return []
    several = order[np.append(same, False) | np.insert(same, 0, False)]
    number_S, row_S = number_M[several], row_M[several]
    id_S = np.empty(len(several), object)
    for at in np.unique(number_S):
        of_part = number_S == at
        id_S[of_part] = segments[at].rows[ID].take(pa.array(row_S[of_part])).to_pylist()
    newest: dict[str, int] = {}
    replaced = []
    for place in np.argsort(number_S, kind="stable").tolist():
        if (before := newest.get(id_S[place])) is not None:
            replaced.append(before)
        newest[id_S[place]] = place
    gone = np.array(replaced, np.int64)
    return [(int(at), row_S[gone][number_S[gone] == at].astype(np.int64)) for at in np.unique(number_S[gone])]
