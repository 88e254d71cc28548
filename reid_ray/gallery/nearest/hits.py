"""Hits of queries in all parts: thresholds, one hit for each value of a column, and rounds until there are as many as are wanted.

A round asks each part for the best; who has too few distinct hits after it asks again, alone, without what it has already. Knows parts and
rows; not the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.config import NearestConfig
from reid_ray.gallery.items import ID
from reid_ray.gallery.nearest.best_of_parts import best_of_parts
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.postings import Condition

_GROWTH = 4


class Found(NamedTuple):
    """One hit. A tuple, for of these there are thousands a second.

    generation: in which it was found; with item_id it names the item for good.
    score: cosine, or what a re-ranking made of it.
    item: its columns.
    """

    generation: int
    item_id: str
    score: float
    item: dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What is wanted of each query: k hits, none below the threshold, one for each value of the column one_per."""

    k: int
    threshold: float | None = None
    one_per: str | None = None


@dataclass
class _Taken:
    """The hits of one query so far, (score, part, row) each, and whether there may be more."""

    hits: list[tuple[float, int, int]] = field(default_factory=list)
    values: set[Any] = field(default_factory=set)
    unfinished: bool = True


@dataclass(frozen=True)
class PartSearch:
    """A search of a gallery as it was when it began.

    parts: of the gallery.
    generation: that they are of.
    passing: for each part which rows count: bool [N].
    wish: what is wanted.
    nearest: how to search; of kind flat exactly.
    items_of: the columns of some rows.
    device: a torch device that compares the vectors of segments; None: the CPU does.
    """

    parts: Sequence[LivePart]
    generation: int
    passing: Sequence[np.ndarray]
    wish: Wish
    nearest: NearestConfig
    items_of: Callable[[LivePart, Sequence[int]], list[dict[str, Any]]]
    device: str | None = None

    def hits(self, query_QD: np.ndarray) -> list[list[Found]]:
        """The hits of each unit vector, best first, equal scores in the order of part and row."""
        found = self._best(query_QD, self.passing, self.wish.k)
        if self._are_hits(found):
            return self._with_items([list(zip(*each, strict=True)) for each in zip(*(array.tolist() for array in found), strict=True)])
        taken = [_Taken() for _ in query_QD]
        for query_D, each, *first in zip(query_QD, taken, *found, strict=True):
            self._take(each, first, self.wish.k)
            fetched = self.wish.k
            while each.unfinished:
                fetched *= _GROWTH
                again = self._best(query_D[None], self._without(each), fetched)
                self._take(each, [array[0] for array in again], fetched)
            each.hits.sort(key=lambda hit: (-hit[0], hit[1], hit[2]))  # a later round of an approximate kind may find better
        return self._with_items([each.hits for each in taken])

    def _are_hits(self, found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> bool:
        """Whether what was found first is what is wanted, as nearly always: all of it counts, and none was deleted since."""
        if self.wish.threshold is not None or self.wish.one_per is not None:
            return False
        _, part_QK, row_QK = found
        return all(self.parts[number].alive[row_QK[part_QK == number]].all() for number in set(part_QK.ravel().tolist()))

    def _with_items(self, hits: Sequence[Sequence[tuple[float, int, int]]]) -> list[list[Found]]:
        """Hits of all queries with their columns, which are read once for each part: row by row it takes ten times as long."""
        items: dict[tuple[int, int], dict[str, Any]] = {}
        for number, row_N in _rows_by_part(hits).items():
            items.update(zip(((number, row) for row in row_N), self.items_of(self.parts[number], row_N), strict=True))
        return [[Found(self.generation, (item := items[number, row])[ID], score, item) for score, number, row in found] for found in hits]

    def _best(self, query_QD: np.ndarray, passing: Sequence[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        searched = [part.searched(mask, self.nearest.kind, self.device) for part, mask in zip(self.parts, passing, strict=True)]
        return best_of_parts(query_QD, searched, k, self.nearest)

    def _take(self, taken: _Taken, found: Sequence[np.ndarray], fetched: int) -> None:
        """Add what a query found, best first, to its hits."""
        wish = self.wish
        for score, number, row in zip(*(array.tolist() for array in found), strict=True):
            if wish.threshold is not None and score < wish.threshold:
                taken.unfinished = False
                return
            part = self.parts[number]
            if not part.alive[row]:  # deleted since the search began
                continue
            value = None if wish.one_per is None else _value_of(part, row, wish.one_per)
            if value is not None and value in taken.values:
                continue
            taken.values.add(value)
            taken.hits.append((score, number, row))
            if len(taken.hits) == wish.k:
                taken.unfinished = False
                return
        taken.unfinished = len(found[0]) == fetched

    def _without(self, taken: _Taken) -> list[np.ndarray]:
        """Which rows still count: those that live, without the hits, and without the values that they have."""
        masks = [mask & part.alive[: len(mask)] for part, mask in zip(self.parts, self.passing, strict=True)]
        for _, number, row in taken.hits:
            masks[number][row] = False
        column, values = self.wish.one_per, tuple(value for value in taken.values if value is not None)
        if column is None or not values:
            return masks
        for part, mask in zip(self.parts, masks, strict=True):
            if (postings := part.postings().get(column)) is not None:
                for start, stop in postings.spans(Condition(column, values=values)):
                    row_N = postings.row_N[start:stop]
                    mask[row_N[row_N < len(mask)]] = False  # the buffer may have grown
        return masks


def _rows_by_part(hits: Sequence[Sequence[tuple[float, int, int]]]) -> dict[int, list[int]]:
    """The rows of all queries' hits by the number of their part, ascending."""
    rows: dict[int, set[int]] = {}
    for found in hits:
        for _, number, row in found:
            rows.setdefault(number, set()).add(row)
    return {number: sorted(each) for number, each in rows.items()}


def _value_of(part: LivePart, row: int, column: str) -> Any:
    """What a row has in a column; None where its part lacks it."""
    rows = part.rows()
    return rows[column][row].as_py() if column in rows.column_names else None


def checked_queries(query_QD: np.ndarray, k: int, dim: int) -> np.ndarray:
    """Queries as contiguous float32.

    Raises:
        ConfigError: k below 1.
        DataError: queries that are no unit vectors of that dimension.
    """
    query_QD = np.ascontiguousarray(query_QD, np.float32)
    if k < 1:
        raise ConfigError(f"k is {k}, but must be at least 1")
    if query_QD.ndim != 2 or query_QD.shape[1] != dim:
        raise DataError(f"queries of shape {query_QD.shape} do not fit a gallery of dimension {dim}")
    norm_Q = np.sqrt((query_QD * query_QD).sum(axis=1))
    if not (is_unit_Q := np.abs(norm_Q - 1) <= 1e-3).all():
        wrong = int(np.argmin(is_unit_Q))
        raise DataError(f"query {wrong} has a vector of length {norm_Q[wrong]:g}, not 1; L2-normalise vectors first")
    return query_QD
