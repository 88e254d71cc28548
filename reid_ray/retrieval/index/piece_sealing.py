"""Sealing of pieces: rows of embed tables, read twice and never held, become a segment; what is left out is counted and kept beside it.

One piece a task, on whatever node. Knows tables and pieces; not which rows make a piece, or who adopts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.gallery.bulk.sealed_piece import PiecesGoneError, SealedPiece, read_piece, seal_piece
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.items import BASE, ID, Items, merged_schema
from reid_ray.records import EMBEDDINGS, conform
from reid_ray.retrieval.embed_stream import ENCODER
from reid_ray.retrieval.index.taken_rows import (
    item_schema,
    items_of,
    refuse_another_encoder,
    refuse_other_tables,
    why_left_out,
)
from reid_ray.storage.files import replacing
from reid_ray.versions import number_of

READ, TAKEN, REPLACED = "read", "taken", "replaced"  # of counts; every other key is a reason
_LEFT_OUT = pa.schema([field for field in EMBEDDINGS if field.name != "embedding"])
_LOOKED_AT = (*EMBEDDINGS.names, ENCODER.name)


class PieceRows(Protocol):
    """Interface (protocol) of a piece's rows, which may be read several times. What messages call them goes with them."""

    def schemas(self) -> Sequence[tuple[str, pa.Schema]]:
        """The schemas that the rows have."""
        ...

    def read(self, columns: Sequence[str] | None) -> Iterator[tuple[str, pa.Table]]:
        """The rows in their order, batch by batch: all columns, or those of `columns` that are there."""
        ...


@dataclass(frozen=True)
class PieceTerms:
    """What all pieces of a build have in common.

    pieces: folder of pieces; every node sees it.
    dim, encoder: of the vectors.
    config: of the gallery: how they are stored and indexed.
    include_synthetic: take pictures that an editor made.
    """

    pieces: str
    dim: int
    encoder: str
    config: GalleryConfig
    include_synthetic: bool

    def named(self) -> dict[str, Any]:
        """What a piece is made by, for its name: all but where it lies and how long its items may stay."""
        stored = {"dtype": self.config.dtype, "nearest": self.config.nearest.model_dump(mode="json")}
        made = {"dim": self.dim, "encoder": self.encoder, "include_synthetic": self.include_synthetic}
        return {**stored, **made, "layout": number_of("gallery")}


@dataclass
class _Choice:
    """Which rows of a piece are taken: bool [N]; the columns of the items, the rows that are left out with their reasons, and counts."""

    taken_N: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    schema: pa.Schema = BASE
    left_out: list[pa.Table] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def leave_out(self, table: pa.Table, row_M: np.ndarray, why_N: np.ndarray) -> None:
        """Keep some rows as failed ones."""
        rows = table.take(pa.array(row_M))
        columns = {"status": pa.array(["failed"] * len(row_M)), "reason": pa.array(why_N[row_M], pa.string())}
        columns["item_id"] = pc.fill_null(rows[ID].cast(pa.string()), "")
        named = {name: columns.get(name, rows[name]) for name in {*rows.column_names, *columns}}
        self.left_out.append(conform(pa.table(named), _LEFT_OUT, origin="rows that are left out"))
        self.counts.update(reason.partition(":")[0] for reason in why_N[row_M])


def seal_rows(name: str, source: PieceRows, terms: PieceTerms) -> SealedPiece:
    """Make a piece of rows, unless it is there. Of rows with one id the last one is taken.

    Raises:
        DataError: a column is missing or cannot be stored, or the vectors are another encoder's.
        PiecesGoneError: the folder of pieces was removed meanwhile.
    """
    folder = Path(terms.pieces)
    if (there := read_piece(folder, name)) is not None:
        return there
    try:
        return _sealed(folder, name, source, terms)
    except FileNotFoundError as error:
        if str(folder) not in str(error):
            raise
        raise PiecesGoneError(f"{error}: is gone, since an erasure was carried out meanwhile or somebody removed it; run again") from None


def _sealed(folder: Path, name: str, source: PieceRows, terms: PieceTerms) -> SealedPiece:
    choice = _chosen(source, terms)
    if choice.left_out:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(left_out_file(folder, name)) as hidden:
            pq.write_table(pa.concat_tables(choice.left_out), hidden, compression="zstd")
    return seal_piece(
        folder,
        name,
        _items(source, choice.taken_N, terms),
        choice.counts[TAKEN],
        dim=terms.dim,
        config=terms.config,
        schema=choice.schema,
        counts=choice.counts,
    )


def left_out_file(folder: Path, name: str) -> Path:
    """Where the rows that a piece leaves out are, if there are any: EMBEDDINGS without vectors."""
    return folder / f"{name}.parquet"


def _chosen(source: PieceRows, terms: PieceTerms) -> _Choice:
    """Which rows are taken, by all but the pictures. Ids of the piece are held, vectors are not."""
    choice = _Choice()
    for origin, schema in source.schemas():
        refuse_other_tables(schema.names, origin)
        choice.schema = merged_schema(choice.schema, item_schema(schema, origin=origin, dim=terms.dim), origin=origin)
    taken: list[np.ndarray] = [np.zeros(0, np.bool_)]
    newest: dict[str, int] = {}
    replaced: list[int] = []
    for origin, table in source.read(_LOOKED_AT):
        why_B = why_left_out(table, dim=terms.dim, include_synthetic=terms.include_synthetic)
        taken_B = np.equal(why_B, None)
        good = table.filter(pa.array(taken_B))
        refuse_another_encoder(good, terms.encoder, origin)
        first = choice.counts[READ]
        for place, item in zip((first + np.flatnonzero(taken_B)).tolist(), good[ID].to_pylist(), strict=True):
            if (before := newest.get(item)) is not None:
                replaced.append(before)
            newest[item] = place
        choice.counts[READ] += table.num_rows
        if not taken_B.all():
            choice.leave_out(table, np.flatnonzero(~taken_B), why_B)
        taken.append(taken_B)
    choice.taken_N = np.concatenate(taken)
    choice.taken_N[replaced] = False
    if replaced:
        choice.counts[REPLACED] = len(replaced)
    choice.counts[TAKEN] = int(np.count_nonzero(choice.taken_N))
    return choice


def _items(source: PieceRows, taken_N: np.ndarray, terms: PieceTerms) -> Iterator[Items]:
    at = 0
    for origin, table in source.read(None):
        taken_B = taken_N[at : at + table.num_rows]
        at += table.num_rows
        if taken_B.any():
            yield items_of(table.filter(pa.array(taken_B)), origin=origin, dim=terms.dim)
