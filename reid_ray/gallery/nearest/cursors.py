"""Pages of a search: a cursor says after which hit the next page begins, so that pages stay apart while the gallery changes.

A page begins after the last hit's score and place, not after a number of hits: what was added or deleted meanwhile moves nothing from one
page to another. A cursor is a text that whoever asks gives back; it holds no query. Knows hits; not how they are found.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid_ray.errors import ConfigError
from reid_ray.gallery.nearest.hits import Found

_OPTIONS, _MARK = json.JSONEncoder(sort_keys=True, default=str), json.JSONEncoder(ensure_ascii=False)  # made once, for that takes longer


@dataclass(frozen=True)
class Page:
    """Hits, and the cursor of the next page; None: there is none. `missing` are the shares of the gallery that were not looked through."""

    hits: list[Found]
    cursor: str | None
    missing: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Mark:
    """Where a page ended: how many hits were shown until there, the last one's id and score, and how many of them have that score."""

    search: str
    generation: int
    shown: int
    item_id: str
    score: float
    tied: int


def search_digests(query_QD: np.ndarray, options: dict[str, Any]) -> list[str]:
    """What the cursors of queries are bound to, one each: a digest of the query and of what else was asked, which they share."""
    text = _OPTIONS.encode(options).encode()
    query_QD = np.ascontiguousarray(query_QD, np.float32)
    return [hashlib.blake2b(query_D.tobytes() + text, digest_size=8).hexdigest() for query_D in query_QD]


def page_after(cursor: str | None, k: int, digest: str, generation: int, search: Callable[[int], Sequence[Found]]) -> Page:
    """The page after a cursor, or the first one.

    Args:
        cursor: of the page before; None for the first page.
        k: hits a page.
        digest: that search_digests gives what is asked now.
        generation: that is open.
        search: the best so many hits.

    Raises:
        ConfigError: a cursor that is none, or that is of another search or of a newer generation.
    """
    mark = None if cursor is None else _read(cursor, digest, generation)
    fetched = k + 1 if mark is None else mark.shown + k + 1
    while True:
        found = list(search(fetched))
        rest = found if mark is None else found[_shown(found, mark) :]
        if len(rest) > k or len(found) < fetched:
            break
        fetched *= 2  # so much came before the mark meanwhile
    hits = rest[:k]
    if len(rest) <= k:
        return Page(hits, None)
    shown, last = len(found) - len(rest) + k, hits[-1]
    tied = 1
    while tied < shown and found[shown - tied - 1].score == last.score:
        tied += 1
    return Page(hits, _written(_Mark(digest, generation, shown, last.item_id, last.score, tied)))


def _shown(found: Sequence[Found], mark: _Mark) -> int:
    """How many of the hits come before the page: those up to the marked item, or up to its place if it is gone or has moved."""
    better = sum(hit.score > mark.score for hit in found)
    equal = [hit.item_id for hit in found[better:] if hit.score == mark.score]
    if mark.item_id in equal:
        return better + equal.index(mark.item_id) + 1
    return better + min(mark.tied - 1, len(equal))


def _written(mark: _Mark) -> str:
    values = [mark.search, mark.generation, mark.shown, mark.item_id, mark.score, mark.tied]
    return base64.urlsafe_b64encode(_MARK.encode(values).encode()).decode().rstrip("=")


def _read(cursor: str, digest: str, generation: int) -> _Mark:
    try:
        search, found, shown, item_id, score, tied = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        mark = _Mark(str(search), int(found), int(shown), str(item_id), float(score), int(tied))
    except (ValueError, TypeError):
        raise ConfigError(f"cursor {cursor[:40]!r}: is none that a search gave; leave it out to begin with the first page") from None
    if mark.search != digest:
        raise ConfigError("cursor: is of a search for something else; leave it out to begin with the first page")
    if mark.generation > generation:
        raise ConfigError(f"cursor: is of generation {mark.generation}, but {generation} is open; refresh, or begin with the first page")
    return mark
