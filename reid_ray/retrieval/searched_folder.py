"""What a search looks through: a gallery, whole or in shares, kept up to date while it is asked.

Knows pages of hits, and which encoder belongs to a gallery; not encoding, HTTP or who asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reid_ray.config.called import called
from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.gallery_interface import SearchableGallery
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.nearest.browsing import Listed
from reid_ray.gallery.nearest.cursors import Page, page_after, search_digests
from reid_ray.gallery.nearest.hits import Found
from reid_ray.gallery.shards.joined_view import JoinedView
from reid_ray.gallery.shards.ray_shard import start_shards
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.shards.share import NOTHING, WHOLE, Share
from reid_ray.model.encoder import Encoder
from reid_ray.model.hub_access import is_hub_name
from reid_ray.model.pretrained import split_encoder
from reid_ray.retrieval.divided_gallery import SharesConfig
from reid_ray.retrieval.gallery_queries import reranked
from reid_ray.retrieval.generation_turns import FlippingView, TurnKeeper
from reid_ray.retrieval.query import Query
from reid_ray.storage import MANIFEST, read_manifest
from reid_ray.storage.object_store.object_client import is_store_address

ENCODER_PATH = "encoder_path"  # in the facts of the index job's manifest: where the encoder of the gallery lay
_OLD_INDEX = "index.faiss"
_LOOK_EVERY_S = 0.2  # how long a search may miss what was written to a gallery


class NewestPage(NamedTuple):
    """The newest items, whether the item that they come after is known, and numbers of the shares that were not looked into."""

    items: list[Listed]
    is_known: bool
    missing: tuple[int, ...]


class FacetCounts(NamedTuple):
    """How many items have each value of a column, by column, and numbers of the shares that were not looked into."""

    columns: dict[str, dict[Any, int]]
    missing: tuple[int, ...]


class SearchedGallery:
    """A gallery: what was written to it is found a fraction of a second later, and what was erased is not. Threads may share it.

    Args:
        folder: the gallery's folder or address.
        shards: its shares, where no reader holds all of it.
        turns: who says when replicas go over to a newer generation together; None: this reader does at once.
        replica: this reader's name there.
        encoder, device: as GalleryView has them; not of shares.

    Attributes:
        dim: of its vectors.

    Raises:
        DataError: the folder holds no gallery, or a damaged one.
    """

    def __init__(
        self,
        folder: str | Path,
        shards: ShardedView | None = None,
        *,
        turns: TurnKeeper | None = None,
        replica: str = "",
        encoder: str | None = None,
        device: str | None = None,
    ) -> None:
        self._flips = FlippingView(folder, turns, name=replica, encoder=encoder, device=device) if turns is not None else None
        self._one: SearchableGallery | None = None
        if turns is None:
            self._one = _opened(folder, encoder=encoder, device=device) if shards is None else JoinedView(str(folder), shards)
        with self._held() as view:
            self.dim = view.manifest.dim
        self._looked = time.monotonic()
        self._looking = threading.Lock()

    def __len__(self) -> int:
        """Items that are searched."""
        with self._held() as view:
            return len(view)

    @property
    def generation(self) -> int:
        """Of what is searched now."""
        with self._held() as view:
            return view.generation

    def pages(self, query_QD: np.ndarray, query: Query) -> list[Page]:
        """A page of hits for each unit vector, asked as `query` says, whose clues the vectors are.

        Raises:
            ConfigError: a filter, column or cursor that the gallery does not know.
        """
        options = query.options()
        with self._looked_at() as view:
            if query.rerank is not None:
                found, missing = view.search(query_QD, max(query.k, query.rerank), **options), _missing(view)
                ranked = [reranked(view, query_D, hits) for query_D, hits in zip(query_QD, found, strict=True)]
                return [Page(hits[: query.k], None, missing) for hits in ranked]
            first = view.search(query_QD, query.k + 1, **options) if query.cursor is None else [None] * len(query_QD)
            digests = search_digests(query_QD, options)
            asked = zip(query_QD, digests, first, strict=True)
            return [_page(view, query, options, query_D=query_D, digest=digest, first=hits) for query_D, digest, hits in asked]

    def vectors_there(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Stored vectors of items, float32 [N, D], and which of them the gallery has, bool [N]."""
        with self._looked_at() as view:
            return view.vectors_there(ids)

    def item(self, item_id: str) -> Listed | None:
        """An item's columns; None where nothing has that id."""
        with self._looked_at() as view:
            found = view.get([item_id])[0]
            return None if found is None else Listed(view.generation, item_id, found)

    def thumbnail(self, item_id: str) -> bytes | None:
        """JPEG bytes of an item, empty if it has none; None where nothing has that id."""
        with self._looked_at() as view:
            return view.thumbnail(item_id)

    def newest(self, k: int, *, where: Mapping[str, Any] | None, after: str | None) -> NewestPage:
        """The newest k items that pass."""
        with self._looked_at() as view:
            items, is_known = view.newest(k, where=where, after=after)
            return NewestPage(items, is_known, _missing(view))

    def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None) -> FacetCounts:
        """How many of the items that pass have each value of some columns.

        Raises:
            ConfigError: a column that the gallery lacks.
        """
        with self._looked_at() as view:
            known = view.typed_columns()
            if unknown := sorted(set(columns) - set(known)):
                raise ConfigError(f"columns: the gallery has no column {unknown[0]} that can be counted; there are {', '.join(known)}")
            return FacetCounts(view.facets(columns, where), _missing(view))

    def describe(self) -> dict[str, Any]:
        """Number of items and of shares that they lack, generation, columns and what they hold, dimension, kind and encoder."""
        with self._looked_at() as view:
            made, items = view.manifest, len(view)
            return {
                "items": items,
                "missing_shares": list(_missing(view)),
                "generation": view.generation,
                "columns": view.typed_columns(),
                "dim": self.dim,
                "index_kind": made.config.nearest.kind,
                "encoder_fingerprint": made.encoder,
            }

    def look(self) -> None:
        """See at once what was written."""
        if self._flips is not None:
            self._flips.look()
        else:
            assert self._one is not None
            with self._looking:
                self._one.refresh()
                self._looked = time.monotonic()

    def _held(self) -> AbstractContextManager[SearchableGallery]:
        if self._flips is not None:
            return self._flips.held()
        assert self._one is not None
        return nullcontext(self._one)

    def _looked_at(self) -> AbstractContextManager[SearchableGallery]:
        """What is searched, after a look at what was written if the last one was a while ago; where replicas flip, a thread looks."""
        if self._one is not None and time.monotonic() - self._looked > _LOOK_EVERY_S and self._looking.acquire(blocking=False):
            try:
                self._one.refresh()
                self._looked = time.monotonic()
            finally:
                self._looking.release()
        return self._held()


def _page(
    view: SearchableGallery, query: Query, options: dict[str, Any], *, query_D: np.ndarray, digest: str, first: list[Found] | None
) -> Page:
    """A page, or the first one of what was found already by this thread."""
    if first is not None:
        page = page_after(None, query.k, digest, view.generation, lambda _: first)
    else:
        page = page_after(query.cursor, query.k, digest, view.generation, lambda fetched: view.search(query_D[None], fetched, **options)[0])
    missing = _missing(view)
    return replace(page, missing=missing) if missing else page


def _missing(view: SearchableGallery) -> tuple[int, ...]:
    """Numbers of the shares that a gallery's last answer to this thread lacked."""
    return view.missing if isinstance(view, JoinedView) else ()


def open_gallery(
    folder: str,
    encoder: Encoder,
    shares: SharesConfig,
    *,
    turns: TurnKeeper | None = None,
    replica: str = "",
    device: str | None = None,
) -> SearchedGallery:
    """Open a gallery for searching with an encoder, whole or in actors that hold a share each; `turns` and `device` as SearchedGallery.

    Raises:
        DataError: the folder holds none, or another encoder made its vectors.
    """
    if shares.count == 1:
        refuse_unfit(folder, dim=encoder.dim, fingerprint=encoder.fingerprint)
        return SearchedGallery(folder, turns=turns, replica=replica, encoder=encoder.fingerprint, device=device)
    limits = {"num_cpus": shares.num_cpus, "timeout_s": shares.timeout_s}
    actors = start_shards(folder, shares.count, encoder=encoder.fingerprint, **limits)
    return SearchedGallery(folder, ShardedView(actors, lost=shares.lost))


def about_gallery(folder: str) -> GalleryView:
    """What is known of a gallery (columns, encoder, erasures) without any of its items.

    Raises:
        DataError: the folder holds none, or a damaged one.
    """
    return _opened(folder, NOTHING)


def refuse_unfit(folder: str, *, dim: int, fingerprint: str, include_synthetic: bool = True) -> None:
    """Refuse, before a replica starts, what an encoder cannot be compared with, what is not whole, and edited pictures.

    Raises:
        DataError: says which.
    """
    about = _opened(folder, NOTHING)
    made = about.manifest
    if (made.dim, made.encoder) != (dim, fingerprint):
        raise DataError(
            f"{folder}: was made by encoder {made.encoder} (dimension {made.dim}), but the encoder given is {fingerprint} "
            f"(dimension {dim}); give the one that made it, or run the index job again"
        )
    asked = not include_synthetic and "synthetic" in about.columns()
    if not asked and is_store_address(folder):
        return  # for nothing else is it brought here
    edited = GalleryView(folder).facets(["synthetic"])["synthetic"].get(True)
    if asked and edited:
        raise DataError(
            f"{folder}: an editor made {edited} of its pictures, so nobody looks like them; set {called('include_synthetic')} "
            "to true to show them, or "
            "delete them from the gallery"
        )


def encoder_of(folder: str, encoder: str | None) -> str:
    """The encoder's folder or hub name: `encoder` if given, else the one that the index job noted beside the gallery.

    Raises:
        DataError: what was noted is not there (any more).
        ConfigError: nothing was noted.
    """
    if encoder is not None:
        return encoder
    _refuse_other_folders(folder)
    facts = read_manifest(folder)["facts"] if (Path(folder) / MANIFEST).is_file() else {}
    noted = facts.get(ENCODER_PATH)
    if noted is not None and facts.get("encoder_fingerprint") != (now := about_gallery(folder).manifest.encoder):
        raise ConfigError(
            f"{called('encoder')}: the gallery {folder} went over to encoder {now} since the index job noted {noted}; give its folder"
        )
    if noted is None:
        raise ConfigError(f"{called('encoder')}: the gallery {folder} keeps its encoder's fingerprint alone; give the encoder's folder")
    if not split_encoder(noted)[0].is_dir() and not is_hub_name(str(split_encoder(noted)[0])):
        raise DataError(f"{folder}: was made by the encoder {noted}, which is not there; set {called('encoder')} to its folder")
    return str(noted)


def _opened(folder: str | Path, share: Share = WHOLE, *, encoder: str | None = None, device: str | None = None) -> GalleryView:
    _refuse_other_folders(folder)
    return GalleryView(folder, share=share, encoder=encoder, device=device)


def _refuse_other_folders(folder: str | Path) -> None:
    if (Path(folder) / _OLD_INDEX).is_file():
        raise DataError(
            f"{folder}: is an index of an older version, which is searched no more; run the index job again, which makes a gallery"
        )
    depot = depot_of(folder, private=True)
    try:
        if not depot.exists():
            raise DataError(f"{folder}: holds no gallery; make one with the index job, or with `reid-ray gallery add`")
    finally:
        depot.close()
