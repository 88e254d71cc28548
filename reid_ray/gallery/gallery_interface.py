"""Interface of a gallery, as those who search it and those who write it see it: what another store would have to do.

GalleryView and the shares of a gallery (JoinedView) are searched through the first, GalleryWriter is written through the second. Files,
generations and segments are not in it; what looks at those (adoption of sealed pieces, the list of generations) asks the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from reid_ray.gallery.manifest import Manifest
from reid_ray.gallery.nearest.browsing import Listed
from reid_ray.gallery.nearest.hits import Found


class SearchableGallery(Protocol):
    """Interface (protocol) of an open gallery that is searched. Vectors are unit vectors, D dimensions; a filter is in its JSON form."""

    @property
    def manifest(self) -> Manifest:
        """Dimension, encoder and configuration of what is searched."""
        ...

    @property
    def generation(self) -> int:
        """Number of the generation that is searched; an answer is (generation, id)."""
        ...

    def __len__(self) -> int: ...

    def refresh(self) -> None:
        """See what was written since."""
        ...

    def search(
        self,
        query_QD: np.ndarray,
        k: int,
        *,
        where: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
        threshold: float | None = None,
        one_per: str | None = None,
        exact: bool = False,
    ) -> list[list[Found]]:
        """The k best distinct items of each query, best first, of those that pass; all of them if there are fewer.

        Raises:
            ConfigError: k below 1, or a filter or column that the gallery lacks.
            DataError: queries that are no unit vectors of its dimension.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """The columns of items, None for ids that the gallery lacks."""
        ...

    def vectors_there(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Stored vectors of items, float32 [N, D], zeros for ids that the gallery lacks, and which it has, bool [N]."""
        ...

    def thumbnail(self, item_id: str) -> bytes | None:
        """The encoded picture of an item: empty if it has none, None if the gallery lacks the item."""
        ...

    def newest(self, k: int, *, where: Mapping[str, Any] | None = None, after: str | None = None) -> tuple[list[Listed], bool]:
        """The newest k items that pass; and whether the item `after`, which they come after, is known."""
        ...

    def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> dict[str, dict[Any, int]]:
        """How many of the items that pass have each value of some columns."""
        ...

    def columns(self) -> list[str]:
        """Names of the items' columns."""
        ...

    def typed_columns(self) -> dict[str, str]:
        """The columns that a filter reads, and what they hold."""
        ...


class WritableGallery(Protocol):
    """Interface (protocol) of a gallery that is open for its one writer. What returned is durable."""

    @property
    def view(self) -> SearchableGallery:
        """As it is searched, with all that this writer wrote."""
        ...

    def add(self, table: pa.Table, *, encoder: str, origin: str = ...) -> int:
        """Add items (item_id, embedding, thumbnail and columns), or replace those whose ids are there. Returns how many.

        Raises:
            DataError: items that cannot be stored, or vectors of another encoder; nothing is added then.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Hide items for good. Returns how many there were."""
        ...

    def erase(self, ids: Sequence[str], *, request: str | None = None) -> str:
        """Hide items at once, and have every byte of them gone by the deadline. Returns the request's name, for its receipt."""
        ...

    def carry_out_erasures(self, *, due_only: bool = False) -> None:
        """Have the bytes of erased items gone before this returns: of all, or of those that are due."""
        ...

    def compact(self) -> None:
        """Drop what is hidden, and merge files."""
        ...

    def snapshot(self, name: str) -> None:
        """Keep the gallery as it is under a name."""
        ...

    def restore(self, name: str) -> None:
        """Go back to a snapshot; what was erased since stays erased."""
        ...

    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot."""
        ...

    def close(self) -> None:
        """Give it back to other writers."""
        ...
