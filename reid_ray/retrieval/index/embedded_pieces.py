"""Pieces of images that are embedded now: what the embedding actors give is sealed where it arrives, by Ray Data's write tasks.

Vectors and pictures never pass through the driver. Knows Ray Data; not what a row must be.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.data.datasource import Datasink

from reid_ray.gallery.bulk.sealed_piece import SealedPiece
from reid_ray.progress import progress_bar
from reid_ray.retrieval.index.blocks_in_memory import seal_blocks
from reid_ray.retrieval.index.piece_sealing import READ, PieceTerms

if TYPE_CHECKING:
    import ray.data
    from ray.data._internal.execution.interfaces import TaskContext
    from ray.data.datasource.datasink import WriteResult

_LOOK_EVERY_S = 1.0


class SegmentSink(Datasink["SealedPiece | None"]):
    """A place that Ray Data writes to: every write is a piece.

    Attributes:
        sealed: the pieces, in the order of the rows, once all are there.
    """

    def __init__(self, terms: PieceTerms, rows: int, origin: str) -> None:
        self._terms, self._rows, self._origin = terms, rows, origin
        self.sealed: list[SealedPiece] = []

    @property
    def min_rows_per_write(self) -> int:
        """Rows of a piece, at least."""
        return self._rows

    def write(self, blocks: Iterable[Any], ctx: TaskContext) -> SealedPiece | None:
        """Seal the rows of a task."""
        return seal_blocks(ctx.task_idx, blocks, self._terms, origin=self._origin)

    def on_write_complete(self, write_result: WriteResult[SealedPiece | None]) -> None:
        """Take what all tasks gave."""
        self.sealed = sorted((each for each in write_result.write_returns if each is not None), key=lambda piece: piece.name)


def seal_embedded(rows: ray.data.Dataset, terms: PieceTerms, *, piece_rows: int, total: int, origin: str) -> list[SealedPiece]:
    """Run a Dataset of embedded images into pieces. Call it inside ray_data_execution; pieces are in the order of the rows.

    Args:
        rows: of embed_images.
        terms: of the build.
        piece_rows: rows of a piece, at least; a task holds them in memory.
        total: how many there are, for the progress bar.
        origin: what messages call them.
    """
    sink = SegmentSink(terms, piece_rows, origin)
    with _watched(Path(terms.pieces), total):
        rows.write_datasink(sink)
    return sink.sealed


@contextmanager
def _watched(folder: Path, total: int) -> Iterator[None]:
    """A progress bar that counts the rows of the pieces that are there."""
    over, known = threading.Event(), dict[str, int]()

    def look() -> None:
        for path in folder.glob("*.json"):
            if path.name not in known:
                known[path.name] = json.loads(path.read_text(encoding="utf-8"))["counts"][READ]
                bar.update(known[path.name])

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_S):
            look()

    with progress_bar("index", total) as bar:
        watching = threading.Thread(target=watch, name="index-progress", daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()
            look()
