"""A gallery as it is searched: by vectors, by items and their columns, page by page.

Being open and up to date is gallery_reader.py's, what a search does nearest/'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.config import NearestConfig
from reid_ray.gallery.depot.interface import Depot
from reid_ray.gallery.gallery_reader import GalleryReader
from reid_ray.gallery.items import ID
from reid_ray.gallery.nearest.browsing import Listed, newest
from reid_ray.gallery.nearest.cursors import Page, page_after, search_digests
from reid_ray.gallery.nearest.feedback import moved_query
from reid_ray.gallery.nearest.hits import Found, PartSearch, Wish, checked_queries
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.postings import add_counts, filterable, parsed_filter, value_counts
from reid_ray.gallery.shards.share import WHOLE, Share


class GalleryView(GalleryReader):
    """An open gallery; may be searched from several threads.

    Args:
        folder: the gallery's folder or address.
        depot, share, removed, encoder: as GalleryReader has them.
        device: a torch device, such as cuda:0, that holds the segments' vectors and compares them all; None: the CPU does, by `nearest`.

    Raises:
        DataError: no gallery is there, or a damaged one.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        depot: Depot | None = None,
        share: Share = WHOLE,
        removed: Callable[[list[str]], object] = lambda ids: None,
        encoder: str | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(folder, depot=depot, share=share, removed=removed, encoder=encoder)
        self._device = device

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
        """The best items of each query, best first; k distinct ones if there are as many that pass.

        Args:
            query_QD: Q unit vectors.
            k: how many, at least 1.
            where: a filter in its JSON form (postings.parsed_filter).
            without: ids that are not wanted.
            threshold: the least score.
            one_per: a column, such as person_id: only the best item of each of its values; items without a value stand for themselves.
            exact: compare every item that passes, whatever the gallery's kind.

        Raises:
            ConfigError: k below 1, or a filter or column that the gallery lacks.
            DataError: queries that are no unit vectors of its dimension.
        """
        query_QD = checked_queries(query_QD, k, self.manifest.dim)
        with self._lock:
            parts, generation, nearest = self.parts(), self.generation, self.manifest.config.nearest
            if one_per is not None and self.schema.get_field_index(one_per) < 0:
                raise ConfigError(f"one_per is {one_per}, but the gallery's columns are {', '.join(self.schema.names)}")
            wanted = parsed_filter(where, self.schema)
            passing = [part.passing(wanted) for part in parts]
            if without:
                for mask, row_N in zip(passing, self._rows_of(list(without)), strict=True):
                    mask[row_N[row_N >= 0]] = False
        wish, how = Wish(k, threshold, one_per), NearestConfig() if exact else nearest
        return PartSearch(parts, generation, passing, wish, how, self._items, self._device).hits(query_QD)

    def page(self, query_D: np.ndarray, k: int, *, cursor: str | None = None, **options: Any) -> Page:
        """The first k hits of a query, or those after a page before.

        Pages stay apart while the gallery changes: no hit is on two of them, and none is left out that was there all the time. (Of equal
        scores that holds as long as the last hit of the page before is there.) The first pages are searched again for each further one.

        Args:
            query_D: a unit vector.
            k: hits a page.
            cursor: of the page before; None for the first one.
            options: of `search`; a cursor goes with the same ones.

        Raises:
            ConfigError: also a cursor that does not fit.
        """
        query_D = checked_queries(np.asarray(query_D)[None], k, self.manifest.dim)[0]
        (digest,) = search_digests(query_D[None], options)
        return page_after(cursor, k, digest, self.generation, lambda fetched: self.search(query_D[None], fetched, **options)[0])

    def query_like(
        self, like: Sequence[str] = (), unlike: Sequence[str] = (), *, query_D: np.ndarray | None = None, unlike_weight: float = 0.5
    ) -> np.ndarray:
        """What to search for, by stored vectors: more like some items and less like others. A unit vector [D].

        Args:
            like: ids of items, whose mean is taken; with query_D also of that.
            unlike: ids of items that push away.
            query_D: of a text or a picture.
            unlike_weight: how strongly they do.

        Raises:
            DataError: an id that the gallery lacks, or nothing is left to search for.
        """
        return moved_query(query_D, self.vectors(like), self.vectors(unlike), unlike_weight=unlike_weight)

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """The columns of items, None for ids that the gallery lacks."""
        found: list[dict[str, Any] | None] = [None] * len(ids)
        for part, at, row in self.located(ids):
            found[at] = self._items(part, [row])[0]
        return found

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Stored vectors of items, float32 [N, D]: to search for more like them.

        Raises:
            DataError: an id that the gallery lacks.
        """
        found, is_there = self.vectors_there(ids)
        if not is_there.all():
            raise DataError(f"{self.folder}: holds no item {ids[int(np.argmin(is_there))]!r} (any more); search for another")
        return found

    def vectors_there(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Stored vectors of items, float32 [N, D], zeros for ids that the gallery lacks, and which it has, bool [N]."""
        found, is_there = np.zeros((len(ids), self.manifest.dim), np.float32), np.zeros(len(ids), np.bool_)
        for part, at, row in self.located(ids):
            found[at], is_there[at] = part.source.vectors[row], True
        return found, is_there

    def newest(self, k: int, *, where: Mapping[str, Any] | None = None, after: str | None = None) -> tuple[list[Listed], bool]:
        """The newest k items that pass, without a query; and whether the item `after`, which they come after, is known here.

        Raises:
            ConfigError: a filter of a column that the gallery lacks.
        """
        with self._lock:
            parts, wanted = self.parts(), parsed_filter(where, self.schema)
            rows = None if after is None else [int(row_N[0]) for row_N in self._rows_of([after])]
            page = newest(parts, wanted, k, rows)
            items = [self._items(parts[number], [row])[0] for number, row in page.places]
            return [Listed(self.generation, item[ID], item) for item in items], page.found

    def newest_of_share(self, k: int, *, where: Mapping[str, Any] | None = None, after: str) -> tuple[list[Listed], list[Listed] | None]:
        """The newest k items that pass, and those after the item `after`; None if it is not known here.

        Of an item that was replaced several shares know a row, living or dead; who merges them takes the second list of the last such
        share, and the first one of those before it.
        """
        with self._lock:
            following, is_known = self.newest(k, where=where, after=after)
            return (self.newest(k, where=where)[0], following) if is_known else (following, None)

    def thumbnail(self, item_id: str) -> bytes | None:
        """The encoded picture of an item: empty if it has none, None if the gallery lacks the item."""
        for part, _, row in self.located([item_id]):
            return part.source.thumbnail(row)
        return None

    def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> dict[str, dict[Any, int]]:
        """How many of the items that pass have each value of some columns; of very many values, as of ids, {None: how many have one}."""
        counts: dict[str, dict[Any, int]] = {column: {} for column in columns}
        with self._lock:
            wanted = parsed_filter(where, self.schema)
            for part in self.parts():
                passing, postings = part.passing(wanted), part.postings()
                for column in columns:
                    if column == ID and passing.any():
                        add_counts(counts[ID], {None: int(np.count_nonzero(passing))})
                    elif column in postings:
                        add_counts(counts[column], value_counts(postings[column], passing))
        return counts

    def ids(self, where: Mapping[str, Any] | None = None) -> list[str]:
        """Ids of the items that pass a filter."""
        with self._lock:
            wanted = parsed_filter(where, self.schema)
            return [each for part in self.parts() for each in part.passing_ids(wanted)]

    def columns(self) -> list[str]:
        """Names of the items' columns."""
        return list(self.schema.names)

    def typed_columns(self) -> dict[str, str]:
        """The items' columns that a filter reads, and what they hold: text, number, whole number, time or truth value."""
        return filterable(self.schema)

    def _items(self, part: LivePart, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Rows with every column of the gallery; what was added before a column was known has none of it."""
        return part.reader().dicts(rows, self.schema.names)
