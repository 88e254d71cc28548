"""Adding the embed job's tables to a gallery: through its log, or by Ray tasks that seal segments which the writer then adopts.

Knows tables and a gallery's writer; not what a row must be, or who asks.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa

from reid_ray.config.common import RayConfig
from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.bulk.adoption import Adoption
from reid_ray.gallery.bulk.erased_since import ErasedSince, ErasuresBefore
from reid_ray.gallery.bulk.sealed_piece import PIECES, PiecesGoneError, SealedPiece
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.items import ID
from reid_ray.gallery.shards.share import NOTHING
from reid_ray.progress import progress_bar
from reid_ray.retrieval.index.piece_sealing import READ, REPLACED, TAKEN, PieceTerms
from reid_ray.retrieval.index.table_pieces import cut_tables, files_of, made_by, sealed_by_tasks
from reid_ray.retrieval.index.taken_rows import item_columns, last_of_each, refuse_another_encoder, refuse_other_tables, why_left_out
from reid_ray.runtime import ray_session
from reid_ray.storage.lock import OutputLock
from reid_ray.storage.object_store.object_client import is_store_address
from reid_ray.storage.table_files import TableFile

ADDED = "added"
ERASED = "erased meanwhile"
PIECES_TRIES = 5  # pieces that an erasure removed are made again so often
_BATCH_ROWS = 8_192


def add_tables(
    folder: str | Path,
    tables: Sequence[str],
    config: GalleryConfig,
    *,
    include_synthetic: bool = False,
    by_tasks: bool = False,
    pieces: str | None = None,
    wait_s: float = 0.0,
) -> dict[str, int]:
    """Add the rows of embed tables to a gallery, which is made if it is not there. Returns how many were added, and left out by why.

    Args:
        folder: the gallery, a folder or an address.
        tables: EMBEDDINGS tables of kind image, as the embed job writes them; their column thumbnail, if any, is kept.
        config: of a gallery that is made.
        include_synthetic: also add pictures that an editor made.
        by_tasks: by Ray tasks on all nodes of the cluster; all rows are there at once then, in one generation.
        pieces: by tasks: a folder that all nodes see, for segments until the gallery has them; None takes one in the gallery's folder.
        wait_s: how long to wait for another writer, seconds.

    Raises:
        ConfigError: by tasks, the gallery is at an address and `pieces` is not given.
        DataError: no row can be added, or vectors of another encoder; or, by tasks, another run adds so, or erasures were carried out
            again and again meanwhile.
    """
    if by_tasks and pieces is None and is_store_address(str(folder)):
        raise ConfigError(f"--pieces is missing: {folder} is no folder; give one that all nodes see, for segments until they are there")
    files = files_of(tables)
    dim, encoder = made_by(files)
    if not _is_there(folder):
        create_gallery(folder, dim=dim, encoder=encoder, config=config)
    with closing(GalleryView(folder, share=NOTHING)) as about:
        made, erased = about.manifest, ErasedSince(str(folder), ErasuresBefore.of(about))
    if (made.dim, made.encoder) != (dim, encoder):
        raise DataError(
            f"{tables[0]}: has vectors of encoder {encoder}, but the gallery {folder} is of {made.encoder}; embed with that one"
        )
    terms = PieceTerms(pieces_folder(folder, pieces), dim, encoder, made.config, include_synthetic)
    if by_tasks:
        counts = _add_by_tasks(folder, files, terms, erased, wait_s)
    else:
        with GalleryWriter(folder, wait_s=wait_s) as writer:
            counts = _add_through_log(writer, files, terms)
    if not counts[ADDED]:
        raise DataError(f"{', '.join(tables)}: no row can be added ({counts_in_words(counts)}); give images that the embed job embedded")
    return counts


def _is_there(folder: str | Path) -> bool:
    depot = depot_of(folder, private=True)
    try:
        return depot.exists()
    finally:
        depot.close()


def pieces_folder(folder: str | Path, asked: str | None) -> str:
    """Where the segments of this gallery lie until it has them: absolute, for the tasks."""
    if asked is not None:  # several galleries may name one folder
        return os.path.join(os.path.realpath(asked), f".{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.{PIECES}")
    return os.path.join(os.path.realpath(folder), PIECES)


def counts_in_words(counts: dict[str, int]) -> str:
    """As in: added 1,000, failed 5."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _add_through_log(writer: GalleryWriter, files: Sequence[TableFile], terms: PieceTerms) -> dict[str, int]:
    counts = Counter({ADDED: 0})
    with progress_bar("gallery", None, unit="item") as bar:
        for file in files:
            with file.open() as parquet:
                refuse_other_tables(parquet.schema_arrow.names, str(file))
                for batch in parquet.iter_batches(_BATCH_ROWS):
                    table = pa.Table.from_batches([batch])
                    why_B = why_left_out(table, dim=terms.dim, include_synthetic=terms.include_synthetic)
                    counts.update(str(reason).partition(":")[0] for reason in why_B[~np.equal(why_B, None)])
                    good = table.filter(pa.array(np.equal(why_B, None)))
                    refuse_another_encoder(good, terms.encoder, str(file))
                    last_G = last_of_each(good[ID].to_pylist())
                    if not last_G.all():
                        counts[REPLACED] += int(np.count_nonzero(~last_G))
                        good = good.filter(pa.array(last_G))
                    counts[ADDED] += writer.add(item_columns(good), encoder=terms.encoder, origin=str(file))
                    bar.update(table.num_rows)
    return dict(counts)


def _add_by_tasks(folder: str | Path, files: Sequence[TableFile], terms: PieceTerms, erased: ErasedSince, wait_s: float) -> dict[str, int]:
    """Tasks seal beside everybody else's writes and searches; the gallery is opened for writing to take the segments alone."""
    lock = OutputLock(Path(terms.pieces), "gallery add --by-tasks")
    Path(terms.pieces).parent.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    try:
        sealed, taken = _sealed_and_taken(folder, files, terms, erased, wait_s)
    finally:
        lock.release()
    counts = Counter({ADDED: taken.living})
    for piece in sealed:
        counts.update({name: count for name, count in piece.counts.items() if name not in (READ, TAKEN)})
    if taken.replaced:
        counts[REPLACED] += taken.replaced
    if taken.erased:
        counts[ERASED] = len(taken.erased)
    return dict(counts)


def _sealed_and_taken(
    folder: str | Path, files: Sequence[TableFile], terms: PieceTerms, erased: ErasedSince, wait_s: float
) -> tuple[list[SealedPiece], Adoption]:
    """The pieces, and what became of them. Those that an erasure removes meanwhile are made again."""
    with ray_session(RayConfig()):
        for left in reversed(range(PIECES_TRIES)):
            try:
                sealed = sealed_by_tasks(cut_tables(files, terms.config), terms)
                with GalleryWriter(folder, wait_s=wait_s) as writer:
                    return sealed, writer.adopt(Path(terms.pieces), sealed, encoder=terms.encoder, erased=erased)
            except PiecesGoneError:
                if not left:
                    raise
    raise AssertionError
