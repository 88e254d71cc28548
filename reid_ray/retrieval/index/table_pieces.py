"""Pieces of embed tables: consecutive row groups that become a segment each, cut by the tables alone, sealed by Ray tasks on any node.

The driver reads footers and what is said of pieces; rows pass through the tasks alone. Knows files and tasks; not what a row must be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from reid_ray.errors import DataError, ReidRayError
from reid_ray.gallery.bulk.sealed_piece import SealedPiece
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.items import VECTOR
from reid_ray.progress import progress_bar
from reid_ray.retrieval.index.piece_sealing import READ, PieceTerms, seal_rows
from reid_ray.retrieval.index.taken_rows import one_encoder, refuse_other_tables
from reid_ray.storage import parquet_files
from reid_ray.storage.table_files import TableFile

_BATCH_ROWS = 8_192
_PIECES = 64  # into how many a table is cut, unless they would be smaller than a segment or larger than a merged one


@dataclass(frozen=True)
class RowGroups:
    """Row groups of a table's files, in order, `rows` in all."""

    groups: tuple[tuple[TableFile, tuple[int, ...]], ...]
    rows: int

    def name(self, terms: PieceTerms) -> str:
        """What it is made of: the files as they are now, the row groups, and the terms."""
        told = [(str(file), file.state(), groups) for file, groups in self.groups]
        return hashlib.sha256(json.dumps([told, terms.named()]).encode()).hexdigest()[:24]

    def schemas(self) -> list[tuple[str, pa.Schema]]:
        """As PieceRows."""
        found = []
        for file, _ in self.groups:
            with file.open() as parquet:
                found.append((str(file), parquet.schema_arrow))
        return found

    def read(self, columns: Sequence[str] | None) -> Iterator[tuple[str, pa.Table]]:
        """As PieceRows."""
        for file, groups in self.groups:
            with file.open() as parquet:
                there = columns and [name for name in columns if name in parquet.schema_arrow.names]
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=list(groups), columns=there):
                    yield str(file), pa.Table.from_batches([batch])


def cut_tables(files: Sequence[TableFile], config: GalleryConfig) -> list[RowGroups]:
    """Pieces of tables, in the tables' order: about as many rows each, in whole row groups."""
    sizes: list[tuple[TableFile, int, int]] = []
    for file in files:
        with file.open() as parquet:
            sizes += [(file, group, parquet.metadata.row_group(group).num_rows) for group in range(parquet.metadata.num_row_groups)]
    wanted = max(least_rows(config), min(config.merge_rows, -(-sum(rows for _, _, rows in sizes) // _PIECES)))
    pieces, held, total = [], dict[TableFile, list[int]](), 0
    for file, group, rows in sizes:
        held.setdefault(file, []).append(group)
        total += rows
        if total >= wanted:
            pieces.append(_piece(held, total))
            held, total = {}, 0
    return [*pieces, *([_piece(held, total)] if total else [])]


def least_rows(config: GalleryConfig) -> int:
    """Of a piece: a segment's, and of an approximate kind as many as have an index, so that the tasks make it."""
    nearest = config.nearest
    return config.segment_rows if nearest.kind == "flat" else max(config.segment_rows, nearest.accelerate_rows)


def made_by(files: Sequence[TableFile]) -> tuple[int, str]:
    """(dimension, encoder's fingerprint) of the first vector in tables.

    Raises:
        DataError: there is none, or what is no table of the embed job.
    """
    for file in files:
        with file.open() as parquet:
            refuse_other_tables(parquet.schema_arrow.names, str(file))
            for batch in parquet.iter_batches(1024, columns=[VECTOR, "encoder_fingerprint"]):
                table = pa.Table.from_batches([batch])
                if len(vectors := table[VECTOR].drop_null()):
                    return len(vectors[0]), one_encoder(table, str(file))
    raise DataError(f"{', '.join(map(str, files[:3]))}: no row has a vector; give images that the embed job embedded")


def sealed_by_tasks(pieces: Sequence[RowGroups], terms: PieceTerms) -> list[SealedPiece]:
    """Make every piece that is not there, by Ray tasks of one CPU each; a task that dies is run again. In the order of `pieces`.

    Raises:
        ReidRayError: of a piece, as itself; the tasks of the others are ended.
    """
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(_seal).options(num_cpus=1)
    sent = ray.put(terms)
    waiting: dict[Any, int] = {task.remote(piece, sent): at for at, piece in enumerate(pieces)}
    sealed: dict[int, SealedPiece] = {}
    with progress_bar("index", sum(piece.rows for piece in pieces), unit="item") as bar:
        try:
            while waiting:
                for done in ray.wait(list(waiting))[0]:
                    sealed[waiting.pop(done)] = piece = ray.get(done)
                    bar.update(piece.counts[READ])
        except RayTaskError as error:
            if isinstance(error.cause, ReidRayError):
                raise error.cause from None
            raise
        finally:
            for each in waiting:
                ray.cancel(each)
    return [sealed[at] for at in range(len(pieces))]


def files_of(tables: Sequence[str]) -> list[TableFile]:
    """The files of tables, in their order.

    Raises:
        DataError: a table holds none.
    """
    return [file for table in tables for file in parquet_files(table)]


def _seal(piece: RowGroups, terms: PieceTerms) -> SealedPiece:
    return seal_rows(piece.name(terms), piece, terms)


def _piece(held: dict[TableFile, list[int]], rows: int) -> RowGroups:
    return RowGroups(tuple((file, tuple(groups)) for file, groups in held.items()), rows)
