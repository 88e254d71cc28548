"""Pieces of rows that are in memory, as an embedding actor gives them: by Ray Data's write tasks, or all of them in this process.

Knows Arrow tables; neither Ray nor what a row must be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from reid_ray.gallery.bulk.sealed_piece import SealedPiece
from reid_ray.progress import progress_bar
from reid_ray.retrieval.index.piece_sealing import PieceTerms, seal_rows


@dataclass(frozen=True)
class BlockRows:
    """Blocks of rows that are in memory, as a piece's rows."""

    blocks: tuple[pa.Table, ...]
    origin: str

    def schemas(self) -> list[tuple[str, pa.Schema]]:
        """As PieceRows."""
        return [(self.origin, block.schema) for block in self.blocks]

    def read(self, columns: Sequence[str] | None) -> Iterator[tuple[str, pa.Table]]:
        """As PieceRows."""
        for block in self.blocks:
            yield self.origin, block if columns is None else block.select([name for name in columns if name in block.column_names])


def seal_blocks(number: int, blocks: Iterable[pa.Table], terms: PieceTerms, *, origin: str) -> SealedPiece | None:
    """Make the piece of that number of a build; None of no rows."""
    held = tuple(block for block in blocks if block.num_rows)
    if not held:
        return None
    ids = hashlib.sha256(repr([block["item_id"].to_pylist() for block in held]).encode()).hexdigest()[:16]
    return seal_rows(f"{number:08d}-{ids}", BlockRows(held, origin), terms)


def seal_here(rows: Iterable[pa.Table], terms: PieceTerms, *, piece_rows: int, total: int, origin: str) -> list[SealedPiece]:
    """Seal the tables of embedded_images one after the other; arguments as of seal_embedded. A piece's rows are held."""
    sealed: list[SealedPiece | None] = []
    held: list[pa.Table] = []
    with progress_bar("index", total) as bar:
        for table in rows:
            held.append(table)
            bar.update(table.num_rows)
            if sum(each.num_rows for each in held) >= piece_rows:
                sealed.append(seal_blocks(len(sealed), held, terms, origin=origin))
                held = []
        sealed.append(seal_blocks(len(sealed), held, terms, origin=origin))
    return [piece for piece in sealed if piece is not None]
