"""Shares of a gallery with the words of GalleryView, as far as a service says them; which shares an answer lacks is said beside it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reid_ray.errors import ResourceError
from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.nearest.browsing import Listed
from reid_ray.gallery.nearest.hits import Found
from reid_ray.gallery.shards.sharded_view import Answered, ShardedView


class JoinedView:
    """All shares as one reader, which threads may share.

    What is asked of one item raises ResourceError where it is not found while a share is lost: it may be there.

    Args:
        folder: the gallery.
        shards: its shares.

    Attributes:
        manifest: of the generation at the start: shares refuse one of another encoder.

    Raises:
        DataError: no gallery is there.
    """

    def __init__(self, folder: str, shards: ShardedView) -> None:
        depot = depot_of(folder, private=True)
        self.manifest = depot.manifest(depot.current())
        self._shards = shards
        self._lacked = threading.local()

    def __len__(self) -> int:
        return int(self._told(self._shards.count()))

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the shares that the last answer to this thread lacked."""
        found: tuple[int, ...] = getattr(self._lacked, "shares", ())
        return found

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
        found: list[list[Found]] = self._told(self._shards.search(query_QD, k, **options))
        return found

    def vectors_there(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As GalleryView.vectors_there."""
        answer = self._shards.vectors_there(ids)
        found: tuple[np.ndarray, np.ndarray] = answer.value
        _refuse_to_guess(answer, is_found=bool(found[1].all()))
        return found

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """As GalleryView.get."""
        answer = self._shards.get(ids)
        found: list[dict[str, Any] | None] = answer.value
        _refuse_to_guess(answer, is_found=None not in found)
        return found

    def newest(self, k: int, *, where: Mapping[str, Any] | None = None, after: str | None = None) -> tuple[list[Listed], bool]:
        """As GalleryView.newest."""
        answer = self._shards.newest(k, where=where, after=after)
        found: tuple[list[Listed], bool] = self._told(answer)
        _refuse_to_guess(answer, is_found=after is None or found[1])
        return found

    def typed_columns(self) -> dict[str, str]:
        """As GalleryView.typed_columns."""
        found: dict[str, str] = self._told(self._shards.typed_columns())
        return found

    def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> dict[str, dict[Any, int]]:
        """As GalleryView.facets."""
        found: dict[str, dict[Any, int]] = self._told(self._shards.facets(columns, where))
        return found

    def thumbnail(self, item_id: str) -> bytes | None:
        """As GalleryView.thumbnail."""
        answer = self._shards.thumbnail(item_id)
        found: bytes | None = answer.value
        _refuse_to_guess(answer, is_found=found is not None)
        return found

    def _told(self, answer: Answered) -> Any:
        """The value of an answer, whose lacking shares `missing` names from now on."""
        self._lacked.shares = answer.missing
        return answer.value


def _refuse_to_guess(answer: Answered, *, is_found: bool) -> None:
    if answer.missing and not is_found:
        raise ResourceError(f"what was asked for is not there, but share {answer.missing[0]} of the gallery is lost; wait until it is back")
