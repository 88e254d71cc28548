"""Shares of a gallery with the words of GalleryView, as far as a service says them; which shares an answer lacks is said beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.nearest.browsing import Listed
from reid_ray.gallery.nearest.hits import Found
from reid_ray.gallery.shards.sharded_view import ShardedView


class JoinedView:
    """All shares as one reader; one thread at a time reads `missing`.

    Args:
        folder: the gallery.
        shards: its shares.

    Attributes:
        manifest: of the generation at the start: shares refuse one of another encoder.
        missing: numbers of the shares that the last search lacked.

    Raises:
        DataError: no gallery is there.
    """

    def __init__(self, folder: str, shards: ShardedView) -> None:
        depot = depot_of(folder, private=True)
        self.manifest = depot.manifest(depot.current())
        self.missing: tuple[int, ...] = ()
        self._shards = shards

    def __len__(self) -> int:
        return int(self._shards.count().value)

    def columns(self) -> list[str]:
        """As GalleryView.columns."""
        return list(self._shards.columns().value)

    def refresh(self) -> None:
        """As GalleryView.refresh."""
        self._shards.refresh()

    @property
    def generation(self) -> int:
        """As GalleryView.generation."""
        return self._shards.position.generation

    def search(self, query_QD: np.ndarray, k: int, **options: Any) -> list[list[Found]]:
        """As GalleryView.search."""
        answer = self._shards.search(query_QD, k, **options)
        self.missing = answer.missing
        found: list[list[Found]] = answer.value
        return found

    def vectors_there(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As GalleryView.vectors_there."""
        found: tuple[np.ndarray, np.ndarray] = self._shards.vectors_there(ids).value
        return found

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """As GalleryView.get."""
        found: list[dict[str, Any] | None] = self._shards.get(ids).value
        return found

    def newest(self, k: int, *, where: Mapping[str, Any] | None = None, after: str | None = None) -> tuple[list[Listed], bool]:
        """As GalleryView.newest."""
        found: tuple[list[Listed], bool] = self._shards.newest(k, where=where, after=after).value
        return found

    def typed_columns(self) -> dict[str, str]:
        """As GalleryView.typed_columns."""
        found: dict[str, str] = self._shards.typed_columns().value
        return found

    def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> dict[str, dict[Any, int]]:
        """As GalleryView.facets."""
        found: dict[str, dict[Any, int]] = self._shards.facets(columns, where).value
        return found

    def thumbnail(self, item_id: str) -> bytes | None:
        """As GalleryView.thumbnail."""
        found: bytes | None = self._shards.thumbnail(item_id).value
        return found
