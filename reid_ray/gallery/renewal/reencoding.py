"""Another encoder: one generation in which every living item has the vector that another encoder made, and is otherwise as it was.

Segment by segment, beside searches and writes; vectors are read from sealed pieces, of which ids are looked up by their hashes. What was
deleted or erased before is in none of the new segments, whatever the pieces hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from reid_ray.errors import DataError
from reid_ray.gallery.bulk.sealed_piece import PiecesGoneError, SealedPiece
from reid_ray.gallery.depot.dead_rows import entry_of
from reid_ray.gallery.generations import new_segment
from reid_ray.gallery.items import ID, Items
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.renewal.compaction import alive_now
from reid_ray.gallery.renewal.generation_writer import GenerationWriter
from reid_ray.gallery.sealed.id_lookup import id_hashes
from reid_ray.gallery.sealed.segment import Segment
from reid_ray.terminal.counted import counted

_BATCH_ROWS = 8_192


@dataclass(frozen=True)
class Reencoding:
    """What became of a gallery's items.

    living: how many have a vector of the new encoder.
    dropped: how many had none, and are deleted.
    unused: how many vectors were there for nobody.
    """

    living: int
    dropped: int
    unused: int


@dataclass(frozen=True)
class _Renewed:
    """A segment's living rows, and where their vectors are: number of the piece and row in it; and the rows that have none."""

    part: LivePart
    row_N: np.ndarray
    piece_N: np.ndarray
    from_N: np.ndarray
    lacking_N: np.ndarray


class _NewVectors:
    """Vectors by id, in sealed pieces."""

    def __init__(self, folder: Path, sealed: Sequence[SealedPiece]) -> None:
        try:
            self._segments = [Segment.open(folder / each.facts.name, each.facts) for each in sealed if each.facts is not None]
        except FileNotFoundError as error:
            raise PiecesGoneError(
                f"{error}: is gone, since an erasure was carried out meanwhile or somebody removed it; run again"
            ) from None

    def __len__(self) -> int:
        return sum(map(len, self._segments))

    def places(self, ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Number of the last piece that has each id, -1: none, and the row in it."""
        hash_N = id_hashes(ids)
        piece_N, from_N = np.full(len(ids), -1, np.int32), np.zeros(len(ids), np.int64)
        for number, segment in enumerate(self._segments):
            row_N = segment.rows_of(ids, hash_N)
            piece_N[row_N >= 0], from_N[row_N >= 0] = number, row_N[row_N >= 0]
        return piece_N, from_N

    def read(self, piece_N: np.ndarray, from_N: np.ndarray, dim: int) -> np.ndarray:
        """Vectors, float32 [N, D]."""
        found = np.empty((len(piece_N), dim), np.float32)
        for number in np.unique(piece_N):
            among = piece_N == number
            found[among] = self._segments[number].vectors[from_N[among]]
        return found

    def close(self) -> None:
        for segment in self._segments:
            segment.close()


def reencode_segments(
    at: GenerationWriter, folder: Path, sealed: Sequence[SealedPiece], *, made_by: tuple[int, str], drop_missing: bool
) -> Reencoding:
    """Go over to another encoder; maintenance is held. Takes 20 bytes an item while it runs.

    Args:
        at: the gallery.
        folder: of the pieces.
        sealed: those that have the vectors, the oldest first.
        made_by: (dimension, encoder) of the vectors.
        drop_missing: delete items without one.

    Raises:
        DataError: an item has no vector, or items were added meanwhile; the gallery is as it was.
        PiecesGoneError: a piece is not there.
    """
    with at.gate.exclusive():
        if at.has_log:
            at.swap(at.entries())
    vectors = _NewVectors(folder, sealed)
    try:
        renewed = [_renewed(part, vectors) for part in at.segments()]
        if not drop_missing:
            _refuse_missing(renewed, made_by[1])
        manifest = replace(at.view.manifest, dim=made_by[0], encoder=made_by[1])
        facts = [
            new_segment(at.depot, _batches(each, vectors, manifest.dim), len(each.row_N), manifest, at.view.schema) for each in renewed
        ]
        living = sum(len(each.row_N) for each in renewed)
        dropped = sum(len(each.lacking_N) for each in renewed)
        with at.gate.exclusive():
            if at.added:
                came = counted(at.added, "item")
                raise DataError(
                    f"{at.folder}: while it went over to encoder {made_by[1]}, {came} of the encoder before came; embed these with the new "
                    "one, too, and run again while nobody adds"
                )
            alive = alive_now(at, [each.part for each in renewed], [each.row_N for each in renewed])
            entries = [entry_of(at.depot, fact, alive_N) for fact, alive_N in zip(facts, alive, strict=True) if fact is not None]
            at.swap(entries, made_by=made_by)
    except BaseException:
        at.depot.clear(at.view.manifest)  # what was sealed already
        raise
    finally:
        vectors.close()
    return Reencoding(living, dropped, len(vectors) - living)


def _renewed(part: LivePart, vectors: _NewVectors) -> _Renewed:
    """The living rows of a segment that have a new vector."""
    row_N = np.flatnonzero(part.alive)
    pieces, rows = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for start in range(0, len(row_N), _BATCH_ROWS):
        ids = part.rows()[ID].take(pa.array(row_N[start : start + _BATCH_ROWS])).to_pylist()
        piece_B, from_B = vectors.places(ids)
        pieces.append(piece_B)
        rows.append(from_B)
    piece_N, from_N = np.concatenate(pieces), np.concatenate(rows)
    there = piece_N >= 0
    return _Renewed(part, row_N[there], piece_N[there], from_N[there], row_N[~there])


def _refuse_missing(renewed: Sequence[_Renewed], encoder: str) -> None:
    missing = [each for each in renewed if len(each.lacking_N)]
    if missing:
        item = missing[0].part.rows()[ID][int(missing[0].lacking_N[0])].as_py()
        lacking = counted(sum(len(each.lacking_N) for each in missing), "item")
        raise DataError(
            f"{lacking} of the gallery without a vector of encoder {encoder}, such as {item!r}; embed them, too, or have them dropped "
            "(--drop-missing)"
        )


def _batches(renewed: _Renewed, vectors: _NewVectors, dim: int) -> Iterator[Items]:
    for start in range(0, len(renewed.row_N), _BATCH_ROWS):
        batch = slice(start, start + _BATCH_ROWS)
        items = renewed.part.source.items(renewed.row_N[batch])
        yield Items(vectors.read(renewed.piece_N[batch], renewed.from_N[batch], dim), items.rows, items.thumbnails)
