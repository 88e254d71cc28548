"""What a search looks through: a folder of the index job, which never changes, or a gallery, which does. One interface for both.

Knows how a folder's items become hits; not encoding, HTTP or who asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.deadlines import ErasureTimer
from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.erasure_keeper import keep_deadlines
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.model.encoder import Encoder
from reid_ray.model.pretrained import split_encoder
from reid_ray.retrieval.index.faiss_index import GalleryIndex, read_facts, refuse_other_encoder, refuse_synthetic
from reid_ray.retrieval.index.thumbnails import ThumbnailReader

_SHOWN = ("image_id", "person_id", "camera_id", "dataset", "split", "synthetic")
_LOOK_EVERY_S = 0.2  # how long a search may miss what was written to a gallery


@dataclass(frozen=True)
class Hit:
    """One item; `thumbnail` names its small picture, `score` is a cosine."""

    rank: int
    thumbnail: str
    score: float
    image_id: str
    person_id: int | None
    camera_id: int | None
    dataset: str | None
    split: str | None
    synthetic: bool | None


class SearchedFolder(Protocol):
    """Interface (protocol) of what is searched. May be called from several threads."""

    dim: int

    def __len__(self) -> int:
        """Items that are searched."""
        ...

    def search(self, query_QD: np.ndarray, k: int, *, camera_ids: Sequence[int] | None = None) -> list[tuple[Hit, ...]]:
        """The best items of each unit vector, best first; at most k."""
        ...

    def describe(self) -> dict[str, Any]:
        """Number of items, cameras, dimension, kind and encoder."""
        ...


class Thumbnails(Protocol):
    """Interface (protocol) of the small pictures, by the names in hits."""

    def named(self, name: str) -> bytes | None:
        """JPEG bytes; None where nothing has that name."""
        ...


class SearchedIndex:
    """A folder of the index job."""

    def __init__(self, index: GalleryIndex) -> None:
        self._index, self.dim = index, index.dim
        self._what = {name: index.items[name] for name in _SHOWN}
        self._cameras = sorted({camera for camera in self._what["camera_id"].unique().to_pylist() if camera is not None})

    def __len__(self) -> int:
        return len(self._index)

    def search(self, query_QD: np.ndarray, k: int, *, camera_ids: Sequence[int] | None = None) -> list[tuple[Hit, ...]]:
        """As SearchedFolder."""
        score_QK, row_QK = self._index.search(query_QD, k, camera_ids=camera_ids)
        return [self._hits(score_K[row_K >= 0], row_K[row_K >= 0]) for score_K, row_K in zip(score_QK, row_QK, strict=True)]

    def describe(self) -> dict[str, Any]:
        """As SearchedFolder."""
        return {
            "items": len(self._index),
            "cameras": self._cameras,
            "dim": self.dim,
            "index_kind": self._index.config.kind,
            "encoder_fingerprint": self._index.encoder_fingerprint,
        }

    def _hits(self, score_K: np.ndarray, row_K: np.ndarray) -> tuple[Hit, ...]:
        columns = {name: column.take(row_K).to_pylist() for name, column in self._what.items()}
        return tuple(
            Hit(rank=at + 1, thumbnail=str(row), score=float(score), **{name: values[at] for name, values in columns.items()})
            for at, (score, row) in enumerate(zip(score_K, row_K, strict=True))
        )


class SearchedGallery:
    """A gallery: what was written to it is found a fraction of a second later, and what was erased is not."""

    def __init__(self, folder: str | Path) -> None:
        self._view = GalleryView(folder)
        self.dim = self._view.manifest.dim
        self._looked = time.monotonic()
        self._looking = threading.Lock()

    def __len__(self) -> int:
        return len(self._view)

    def search(self, query_QD: np.ndarray, k: int, *, camera_ids: Sequence[int] | None = None) -> list[tuple[Hit, ...]]:
        """As SearchedFolder."""
        self._look()
        known = self._view.schema.get_field_index("camera_id") >= 0
        if camera_ids is not None and not known:
            return [() for _ in query_QD]
        where = None if camera_ids is None else {"camera_id": list(camera_ids)}
        return [
            tuple(
                Hit(
                    rank=rank,
                    thumbnail=quote(hit.item_id, safe=""),
                    score=hit.score,
                    **{name: hit.item.get(name) for name in _SHOWN if name != "image_id"},
                    image_id=hit.item.get("image_id") or hit.item_id,
                )
                for rank, hit in enumerate(hits, 1)
            )
            for hits in self._view.search(query_QD, k, where=where)
        ]

    def describe(self) -> dict[str, Any]:
        """As SearchedFolder."""
        self._look()
        return {
            "items": len(self._view),
            "cameras": sorted(self._view.facets(["camera_id"])["camera_id"]),
            "dim": self.dim,
            "index_kind": "gallery",
            "encoder_fingerprint": self._view.manifest.encoder,
        }

    def named(self, name: str) -> bytes | None:
        """As Thumbnails."""
        self._look()
        return self._view.thumbnail(name) or None

    def _look(self) -> None:
        if time.monotonic() - self._looked > _LOOK_EVERY_S and self._looking.acquire(blocking=False):
            try:
                self._view.refresh()
                self._looked = time.monotonic()
            finally:
                self._looking.release()


def is_gallery(folder: str | Path) -> bool:
    """Whether a folder holds a gallery, and no index."""
    return depot_of(folder, private=True).exists()


def open_folder(folder: str, encoder: Encoder) -> SearchedFolder:
    """Open an index or a gallery.

    Raises:
        DataError: the folder holds neither, or another encoder made its vectors.
    """
    if not is_gallery(folder):
        return SearchedIndex(GalleryIndex.load(folder, encoder))
    refuse_unfit(folder, dim=encoder.dim, fingerprint=encoder.fingerprint)
    return SearchedGallery(folder)


def open_thumbnails(folder: str) -> Thumbnails:
    """Open the small pictures of an index or a gallery."""
    return SearchedGallery(folder) if is_gallery(folder) else ThumbnailReader(folder)


def keep_erasures(folder: str) -> ErasureTimer | None:
    """Have a gallery's erasures carried out by their deadlines for as long as this process lives; None for an index, which has none."""
    return keep_deadlines(GalleryView(folder)) if is_gallery(folder) else None


def refuse_unfit(folder: str, *, dim: int, fingerprint: str, include_synthetic: bool = True) -> None:
    """Refuse, before a replica starts, what an encoder cannot be compared with, what is not whole, and edited pictures.

    Raises:
        DataError: says which.
    """
    if not is_gallery(folder):
        facts = read_facts(folder)
        refuse_other_encoder(facts, folder=folder, dim=dim, fingerprint=fingerprint)
        if not include_synthetic:
            refuse_synthetic(folder)
        if (pictures := len(ThumbnailReader(folder))) != facts["items"]:
            raise DataError(f"{folder}: has {facts['items']} items but {pictures} thumbnails; run the index job again")
        return
    view = GalleryView(folder)
    made_by = {"dim": view.manifest.dim, "encoder_fingerprint": view.manifest.encoder, "encoder_path": "of the gallery"}
    refuse_other_encoder(made_by, folder=folder, dim=dim, fingerprint=fingerprint)
    if not include_synthetic and (edited := view.facets(["synthetic"])["synthetic"].get(True)):
        raise DataError(
            f"{folder}: an editor made {edited} of its pictures, so nobody looks like them; set include_synthetic to true to show them, or "
            "delete them from the gallery"
        )


def encoder_of(folder: str, encoder: str | None) -> str:
    """The encoder's folder: `encoder` if given, else the one that an index remembers.

    Raises:
        DataError: the index does not say, or what it says is not there (any more).
        ConfigError: a gallery, which remembers none.
    """
    if encoder is not None:
        return encoder
    if is_gallery(folder):
        raise ConfigError(f"encoder: {folder} is a gallery, which keeps its encoder's fingerprint alone; give the encoder's folder")
    remembered = read_facts(folder)["encoder_path"]
    if remembered is None or not split_encoder(remembered)[0].is_dir():
        raise DataError(f"{folder}: remembers encoder {remembered}, which is not there; set encoder to its folder")
    return str(remembered)
