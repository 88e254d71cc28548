"""A gallery goes over to another encoder by the embed job's tables of its items: pieces are sealed, in which the writer reads vectors.

Knows tables and a gallery's writer; not what a row must be, or who asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from reid_ray.config.common import RayConfig
from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.bulk.sealed_piece import PiecesGoneError, SealedPiece
from reid_ray.gallery.config import NearestConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.gallery.renewal.reencoding import Reencoding
from reid_ray.gallery.shards.share import NOTHING
from reid_ray.progress import progress_bar
from reid_ray.retrieval.index.piece_sealing import READ, PieceTerms, seal_rows
from reid_ray.retrieval.index.table_adding import PIECES_TRIES, pieces_folder
from reid_ray.retrieval.index.table_pieces import RowGroups, cut_tables, files_of, made_by, sealed_by_tasks
from reid_ray.runtime import ray_session
from reid_ray.scratch import scratch_folder
from reid_ray.storage.lock import OutputLock
from reid_ray.storage.object_store.object_client import is_store_address


def reencode_by_tables(
    folder: str | Path,
    tables: Sequence[str],
    *,
    by_tasks: bool = False,
    pieces: str | None = None,
    drop_missing: bool = False,
    wait_s: float = 0.0,
) -> Reencoding:
    """Give every item of a gallery the vector that tables have of it, all in one generation, which is of the tables' encoder then.

    Args:
        folder: the gallery, a folder or an address.
        tables: EMBEDDINGS tables, as the embed job writes them; of their columns the vectors alone are read.
        by_tasks: seal by Ray tasks on all nodes of the cluster.
        pieces: a folder for vectors on their way; None takes one in the gallery's folder, or of a gallery at an address a scratch folder.
        drop_missing: delete items without a vector in the tables.
        wait_s: how long to wait for another writer, seconds.

    Raises:
        ConfigError: by tasks, the gallery is at an address and `pieces` is not given.
        DataError: the gallery is of that encoder already, an item has no vector, or items were added meanwhile; it is as it was then.
    """
    if by_tasks and pieces is None and is_store_address(str(folder)):
        raise ConfigError(f"--pieces is missing: {folder} is no folder; give one that all nodes see, for vectors on their way")
    files = files_of(tables)
    dim, encoder = made_by(files)
    with contextlib.closing(GalleryView(folder, share=NOTHING)) as about:
        made = about.manifest
    if made.encoder == encoder:
        raise DataError(f"{tables[0]}: has vectors of encoder {encoder}, of which the gallery {folder} is already; `add` adds to it")
    config = made.config.model_copy(update={"nearest": NearestConfig()})  # pieces are read, never searched
    with _place(folder, pieces) as place:
        terms = PieceTerms(str(place), dim, encoder, config, True)
        sealing = sealed_by_tasks if by_tasks else _sealed_here
        with ray_session(RayConfig()) if by_tasks else contextlib.nullcontext():
            return _reencoded(folder, lambda: sealing(cut_tables(files, config), terms), terms, drop_missing=drop_missing, wait_s=wait_s)


def _reencoded(
    folder: str | Path, seal: Callable[[], list[SealedPiece]], terms: PieceTerms, *, drop_missing: bool, wait_s: float
) -> Reencoding:
    for left in reversed(range(PIECES_TRIES)):
        sealed = seal()
        try:
            with GalleryWriter(folder, wait_s=wait_s) as writer:
                return writer.reencode(Path(terms.pieces), sealed, encoder=terms.encoder, dim=terms.dim, drop_missing=drop_missing)
        except PiecesGoneError:  # an erasure that was carried out removed them
            if not left:
                raise
    raise AssertionError


@contextlib.contextmanager
def _place(folder: str | Path, pieces: str | None) -> Iterator[Path]:
    """Where pieces lie, for this process alone."""
    with contextlib.ExitStack() as held:
        if pieces is None and is_store_address(str(folder)):
            yield held.enter_context(scratch_folder()) / "pieces"
            return
        place = Path(pieces_folder(folder, pieces))
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = OutputLock(place, "gallery reencode")
        lock.acquire()
        held.callback(lock.release)
        yield place


def _sealed_here(pieces: Sequence[RowGroups], terms: PieceTerms) -> list[SealedPiece]:
    sealed = []
    with progress_bar("gallery", sum(piece.rows for piece in pieces), unit="item") as bar:
        for piece in pieces:
            sealed.append(seal_rows(piece.name(terms), piece, terms))
            bar.update(sealed[-1].counts[READ])
    return sealed
