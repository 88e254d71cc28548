"""A gallery whose shares answer as one: the same hits, in the same order, as of a reader that holds all of it.

Every question is put to all shares at one position, so that no item is seen twice or missed while others write; hits are merged by score,
share and place. A share that is lost is said, or the question refused, as asked for; it is asked again with every question. Knows shares
and hits; not where a share lives.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from reid_ray.errors import DataError, ResourceError
from reid_ray.gallery.gate import Gate
from reid_ray.gallery.nearest.browsing import Listed
from reid_ray.gallery.nearest.hits import Found
from reid_ray.gallery.sealed.postings import add_counts
from reid_ray.gallery.shards.one_share import Asked, ShardLostError, ShareReply
from reid_ray.gallery.shards.share import Position

_TRIES = 20  # a generation may be swapped away while shares go over to it
_ASKED_AT_ONCE = 8  # questions, each with a thread for each share


class Answered(NamedTuple):
    """An answer, and the numbers of the shares that it lacks."""

    value: Any
    missing: tuple[int, ...]


class ShardedView:
    """All shares of a gallery; may be asked from several threads.

    Args:
        shards: every share, by number.
        lost: what becomes of a question while a share is lost: "refuse" raises, "say" answers from the others and names it.

    Raises:
        ResourceError: a share is lost; "say" needs one that is not.
    """

    def __init__(self, shards: Sequence[Asked], *, lost: Literal["refuse", "say"] = "refuse") -> None:
        self._shards, self._lost = list(shards), lost
        self._pool = ThreadPoolExecutor(_ASKED_AT_ONCE * len(self._shards), thread_name_prefix="shards")
        self._gate = Gate()
        self._moving = threading.Lock()
        self._position: Position
        self.refresh()

    @property
    def position(self) -> Position:
        """Where all shares are."""
        return self._position

    def refresh(self) -> None:
        """See what was written since, in all shares alike.

        Raises:
            ResourceError: no share is left; or, where that is refused, one is lost.
        """
        with self._moving, self._gate.exclusive():
            self._together()

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
    ) -> Answered:
        """As GalleryView.search: hits [Q][K], and which shares they lack."""
        options = {"where": where, "without": without, "threshold": threshold, "one_per": one_per, "exact": exact}
        found = self._asked("search", query_QD, k, **options)
        parts = [each for each in found.value if each is not None]
        hits = [best_hits([part[query] for part in parts], k, one_per=one_per) for query in range(len(query_QD))]
        return Answered(hits, found.missing)

    def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> Answered:
        """As GalleryView.facets: counts added up."""
        found = self._asked("facets", columns, where)
        counts: dict[str, dict[Any, int]] = {column: {} for column in columns}
        for part in found.value:
            for column, values in (part or {}).items():
                add_counts(counts[column], values)
        return Answered(counts, found.missing)

    def count(self) -> Answered:
        """Items of all shares."""
        found = self._asked("__len__")
        return Answered(sum(part or 0 for part in found.value), found.missing)

    def columns(self) -> Answered:
        """As GalleryView.columns."""
        found = self._asked("columns")
        return Answered(next(part for part in found.value if part is not None), found.missing)

    def get(self, ids: Sequence[str]) -> Answered:
        """As GalleryView.get."""
        found = self._asked("get", list(ids))
        rows = [next((part[at] for part in found.value if part is not None and part[at] is not None), None) for at in range(len(ids))]
        return Answered(rows, found.missing)

    def typed_columns(self) -> Answered:
        """As GalleryView.typed_columns."""
        found = self._asked("typed_columns")
        return Answered({name: words for part in found.value if part is not None for name, words in part.items()}, found.missing)

    def vectors_there(self, ids: Sequence[str]) -> Answered:
        """As GalleryView.vectors_there."""
        found = self._asked("vectors_there", list(ids))
        parts = [part for part in found.value if part is not None]
        return Answered((sum(vector_ND for vector_ND, _ in parts), np.logical_or.reduce([there for _, there in parts])), found.missing)

    def newest(self, k: int, *, where: Mapping[str, Any] | None = None, after: str | None = None) -> Answered:
        """As GalleryView.newest: the last share has the newest items."""
        if after is None:
            found = self._asked("newest", k, where=where)
            lists = [part[0] for part in found.value if part is not None]
            return Answered(([item for listed in reversed(lists) for item in listed][:k], False), found.missing)
        found = self._asked("newest_of_share", k, where=where, after=after)
        parts: list[tuple[list[Listed], list[Listed] | None]] = [part if part is not None else ([], None) for part in found.value]
        holder = next((number for number, (_, following) in reversed(list(enumerate(parts))) if following is not None), None)
        lists = [newest for newest, _ in parts[:holder]]  # of all where none knows it
        if holder is not None:
            lists.append(parts[holder][1] or [])
        return Answered(([item for listed in reversed(lists) for item in listed][:k], holder is not None), found.missing)

    def thumbnail(self, item_id: str) -> Answered:
        """As GalleryView.thumbnail."""
        found = self._asked("thumbnail", item_id)
        return Answered(next((part for part in found.value if part is not None), None), found.missing)

    def close(self) -> None:
        """End its threads; the shares stay."""
        self._pool.shutdown()

    def _asked(self, question: str, *words: Any, **named: Any) -> Answered:
        """The answer of every share at one position, None of one that is lost."""
        for _ in range(_TRIES):
            with self._gate.shared():
                replies, missing = self._each(partial(_answer_of, position=self._position, question=question, words=words, named=named))
            if all(reply is None or reply.position == self._position for reply in replies):
                return Answered([None if reply is None else reply.answer for reply in replies], missing)
            self.refresh()  # a share came back, or somebody else moved them on
        raise DataError("the shares of the gallery are moved on all the time; let one service ask them, or look less often")

    def _together(self) -> None:
        """Bring all shares to one position; nobody asks meanwhile."""
        positions, _ = self._each(lambda shard: shard.look())
        for _ in range(_TRIES):
            target = max(position for position in positions if position is not None)
            if all(position in (None, target) for position in positions):
                self._position = target
                return
            positions, _ = self._each(partial(_advanced, position=target))
            if any(position is not None and position > target for position in positions):  # that generation is gone
                positions, _ = self._each(lambda shard: shard.look())
        raise DataError("the generations of the gallery change faster than its shares can go over; let the writer write less often")

    def _each(self, call: Callable[[Asked], Any]) -> tuple[list[Any], tuple[int, ...]]:
        """What a call of every share returns, None of those that are lost, whose numbers come second."""

        def one(shard: Asked) -> Any:
            try:
                return call(shard)
            except ShardLostError as error:
                return error

        answers = list(self._pool.map(one, self._shards))
        missing = tuple(number for number, answer in enumerate(answers) if isinstance(answer, ShardLostError))
        if missing and (self._lost == "refuse" or len(missing) == len(answers)):
            raise ResourceError(
                f"share {missing[0]} of {len(answers)} of the gallery is lost ({answers[missing[0]]}); wait until it is back"
            )
        return [None if isinstance(answer, ShardLostError) else answer for answer in answers], missing


def _answer_of(shard: Asked, *, position: Position, question: str, words: Sequence[Any], named: Mapping[str, Any]) -> ShareReply:
    return shard.ask(position, question, words, named)


def _advanced(shard: Asked, *, position: Position) -> Position:
    return shard.advance(position)


def best_hits(parts: Sequence[Sequence[Found]], k: int, *, one_per: str | None = None) -> list[Found]:
    """The k best of lists of hits, each the best first: by score, then list, then place; with `one_per` the best of each of its values."""
    merged = heapq.merge(*parts, key=lambda hit: -hit.score)  # stable: equal ones in the order of the lists
    found: list[Found] = []
    seen: set[Any] = set()
    for hit in merged:
        value = hit.item.get(one_per) if one_per is not None else None
        if value is None or value not in seen:
            seen.add(value)
            found.append(hit)
            if len(found) == k:
                break
    return found
