"""The items of a gallery without a query, newest first, page by page.

A page begins after an item, not after a number of items: what was added meanwhile comes before, and moves nothing. Knows parts and
rows; not vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.postings import Filter


@dataclass(frozen=True)
class Listed:
    """An item of the gallery: with `generation` its id names it for good; `item` are its columns."""

    generation: int
    item_id: str
    item: dict[str, Any]


@dataclass(frozen=True)
class Newest:
    """Rows of parts, newest first, and whether the item that they were to come after was there."""

    places: tuple[tuple[int, int], ...]
    found: bool


def newest(parts: Sequence[LivePart], wanted: Filter, k: int, after: Sequence[int] | None) -> Newest:
    """The newest k rows that live and pass; what was added last is the last row of the last part.

    Args:
        parts: of the gallery, oldest first.
        wanted: what passes.
        k: how many.
        after: for each part the row of the item after which the page begins, -1 where it has none, dead or alive; None for the first page.
    """
    begin = None if after is None else next(((part, row) for part, row in reversed(list(enumerate(after))) if row >= 0), None)
    places: list[tuple[int, int]] = []
    for number in range(len(parts) - 1 if begin is None else begin[0], -1, -1):
        if len(places) >= k:
            break
        row_N = np.flatnonzero(parts[number].passing(wanted))
        if begin is not None and number == begin[0]:
            row_N = row_N[: np.searchsorted(row_N, begin[1])]
        places += [(number, int(row)) for row in row_N[::-1][: k - len(places)]]
    return Newest(tuple(places), found=begin is not None)
