"""What is asked of a search, and what it answers: clues with weights, a filter, pages. Data alone; knows neither models nor HTTP."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from reid_ray.gallery.nearest.hits import Found


@dataclass(frozen=True)
class Clue:
    """One of a text, a picture and an item of the gallery, and how much it weighs; below 0: less like it."""

    text: str | None = None
    picture: Image.Image | None = None
    item_id: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Query:
    """One question.

    clues: what is searched for is the unit vector of the weighted sum of their unit vectors.
    k: hits a page.
    where: a filter in its JSON form (gallery.sealed.postings.parsed_filter).
    without: ids of items that are not wanted.
    threshold: the least score.
    one_per: a column, such as person_id: only the best item of each of its values.
    cursor: of the page before; None for the first page.
    rerank: so many of the first hits are ranked anew by their k-reciprocal neighbours, and there are no further pages.
    exact: compare every item that passes, whatever the gallery's kind.
    """

    clues: tuple[Clue, ...]
    k: int
    where: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    threshold: float | None = None
    one_per: str | None = None
    cursor: str | None = None
    rerank: int | None = None
    exact: bool = False

    def options(self) -> dict[str, Any]:
        """How it is searched, as GalleryView.search takes it."""
        options: dict[str, Any] = {"where": self.where or None, "without": self.without, "threshold": self.threshold}
        return {**options, "one_per": self.one_per, "exact": self.exact}

    def alike(self) -> Hashable:
        """Equal for queries that one search can answer together: those that begin, and differ in their clues alone."""
        where = json.dumps(self.where, sort_keys=True, default=str) if self.where else None
        return self.k, where, self.without, self.threshold, self.one_per, self.cursor, self.rerank, self.exact


def text_query(text: str, *, k: int, **options: Any) -> Query:
    """A query by one text."""
    return Query((Clue(text=text),), k, **options)


def picture_query(picture: Image.Image, *, k: int, **options: Any) -> Query:
    """A query by one picture."""
    return Query((Clue(picture=picture),), k, **options)


@dataclass(frozen=True)
class Answer:
    """The hits of one query, best first; or, where `refused` is set, why there are none."""

    hits: tuple[Found, ...]
    encode_ms: float
    search_ms: float
    batch: int  # queries answered together
    gallery: int  # items searched, before any filter
    generation: int
    cursor: str | None = None  # of the next page
    refused: str | None = None
    truncated: bool = False  # the model could not read a text to its end
    missing: tuple[int, ...] = ()  # numbers of the gallery's shares that were lost, and not searched
