"""What a search looks through: a gallery, kept up to date, whose items become hits.

Knows how items become hits, and which encoder belongs to a gallery; not encoding, HTTP or who asks.
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
from reid_ray.gallery.shards.joined_view import JoinedView
from reid_ray.gallery.shards.ray_shard import start_shards
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.shards.share import NOTHING, WHOLE, Share
from reid_ray.model.encoder import Encoder
from reid_ray.model.pretrained import split_encoder
from reid_ray.retrieval.divided_gallery import SharesConfig
from reid_ray.storage import MANIFEST, read_manifest
from reid_ray.storage.object_store.object_client import is_store_address

ENCODER_PATH = "encoder_path"  # in the facts of the index job's manifest: where the encoder of the gallery lay
_OLD_INDEX = "index.faiss"
_SHOWN = ("person_id", "camera_id", "dataset", "split", "synthetic")
_LOOK_EVERY_S = 0.2  # how long a search may miss what was written to a gallery


@dataclass(frozen=True)
class Hit:
    """One item; `generation` and `item_id` name it for good, `thumbnail` names its small picture, `score` is a cosine."""

    rank: int
    generation: int
    item_id: str
    thumbnail: str
    score: float
    image_id: str
    person_id: int | None
    camera_id: int | None
    dataset: str | None
    split: str | None
    synthetic: bool | None


class Thumbnails(Protocol):
    """Interface (protocol) of the small pictures, by the names in hits."""

    def named(self, name: str) -> bytes | None:
        """JPEG bytes; None where nothing has that name."""
        ...


class SearchedGallery:
    """A gallery: what was written to it is found a fraction of a second later, and what was erased is not. Threads may share it.

    Args:
        folder: the gallery's folder or address.
        shards: its shares, where no reader holds all of it.

    Attributes:
        dim: of its vectors.

    Raises:
        DataError: the folder holds no gallery, or a damaged one.
    """

    def __init__(self, folder: str | Path, shards: ShardedView | None = None) -> None:
        self._view = _opened(folder) if shards is None else JoinedView(str(folder), shards)
        self.dim = self._view.manifest.dim
        self._looked = time.monotonic()
        self._looking = threading.Lock()

    def __len__(self) -> int:
        """Items that are searched."""
        return len(self._view)

    def search(self, query_QD: np.ndarray, k: int, *, camera_ids: Sequence[int] | None = None) -> list[tuple[Hit, ...]]:
        """The best items of each unit vector, best first; at most k."""
        self._look()
        if camera_ids is not None and "camera_id" not in self._view.columns():
            return [() for _ in query_QD]
        where = None if camera_ids is None else {"camera_id": list(camera_ids)}
        return [
            tuple(
                Hit(
                    rank=rank,
                    generation=hit.generation,
                    item_id=hit.item_id,
                    thumbnail=quote(hit.item_id, safe=""),
                    score=hit.score,
                    **{name: hit.item.get(name) for name in _SHOWN},
                    image_id=hit.item.get("image_id") or hit.item_id,
                )
                for rank, hit in enumerate(hits, 1)
            )
            for hits in self._view.search(query_QD, k, where=where)
        ]

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the shares that the last search lacked, for whoever searches one batch after the other."""
        return self._view.missing if isinstance(self._view, JoinedView) else ()

    def describe(self) -> dict[str, Any]:
        """Number of items, cameras, dimension, kind and encoder."""
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


def open_gallery(folder: str, encoder: Encoder, shares: SharesConfig) -> SearchedGallery:
    """Open a gallery for searching with an encoder, whole or in actors that hold a share each.

    Raises:
        DataError: the folder holds none, or another encoder made its vectors.
    """
    if shares.count == 1:
        refuse_unfit(folder, dim=encoder.dim, fingerprint=encoder.fingerprint)
        return SearchedGallery(folder)
    actors = start_shards(folder, shares.count, num_cpus=shares.num_cpus, timeout_s=shares.timeout_s)
    return SearchedGallery(folder, ShardedView(actors, lost=shares.lost))


def keep_erasures(folder: str) -> ErasureTimer:
    """Have a gallery's erasures carried out by their deadlines for as long as this process lives."""
    return keep_deadlines(_opened(folder, NOTHING))


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
            f"{folder}: an editor made {edited} of its pictures, so nobody looks like them; set include_synthetic to true to show them, or "
            "delete them from the gallery"
        )


def encoder_of(folder: str, encoder: str | None) -> str:
    """The encoder's folder: `encoder` if given, else the one that the index job noted beside the gallery.

    Raises:
        DataError: what was noted is not there (any more).
        ConfigError: nothing was noted.
    """
    if encoder is not None:
        return encoder
    _refuse_other_folders(folder)
    noted = read_manifest(folder)["facts"].get(ENCODER_PATH) if (Path(folder) / MANIFEST).is_file() else None
    if noted is None:
        raise ConfigError(f"encoder: the gallery {folder} keeps its encoder's fingerprint alone; give the encoder's folder")
    if not split_encoder(noted)[0].is_dir():
        raise DataError(f"{folder}: was made by the encoder {noted}, which is not there; set encoder to its folder")
    return str(noted)


def _opened(folder: str | Path, share: Share = WHOLE) -> GalleryView:
    _refuse_other_folders(folder)
    return GalleryView(folder, share=share)


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
