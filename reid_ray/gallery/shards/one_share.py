"""One share of a gallery that is asked by whoever merges the shares; it moves on only when it is told to, and to where it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.shards.share import Position, Share

_QUESTIONS = frozenset(
    {"search", "facets", "get", "thumbnail", "columns", "typed_columns", "newest", "newest_of_share", "vectors_there", "__len__"}
)


class ShardLostError(Exception):
    """A share does not answer, for now or for good."""


class ShareReply(NamedTuple):
    """Where a share was when it was asked, and its answer; None in place of it where it was elsewhere than the question demands."""

    position: Position
    answer: Any


class Asked(Protocol):
    """Interface (protocol) of a share. Every call may raise ShardLostError."""

    def look(self) -> Position:
        """Read as far as the gallery is written."""
        ...

    def advance(self, position: Position) -> Position:
        """Read to a position and no further, or to the newest generation if that one is gone; returns where it is."""
        ...

    def ask(self, position: Position | None, question: str, words: Sequence[Any], named: Mapping[str, Any]) -> ShareReply:
        """Call a method of GalleryView at a position; None takes where it is."""
        ...


class Shard:
    """As Asked, in this process.

    Args:
        folder: the gallery's folder or address.
        share: which part of it.
        encoder: as GalleryReader has it.
    """

    def __init__(self, folder: str | Path, share: Share, encoder: str | None = None) -> None:
        self._view = GalleryView(folder, share=share, encoder=encoder)

    def look(self) -> Position:
        """As Asked."""
        self._view.refresh()
        return self._view.position

    def advance(self, position: Position) -> Position:
        """As Asked."""
        self._view.refresh(position)
        return self._view.position

    def ask(self, position: Position | None, question: str, words: Sequence[Any], named: Mapping[str, Any]) -> ShareReply:
        """As Asked: where the share moved on meanwhile, the answer is of neither position, and there is none."""
        assert question in _QUESTIONS
        before = self._view.position
        if position is not None and before != position:
            return ShareReply(before, None)
        answer = getattr(self._view, question)(*words, **named)
        after = self._view.position
        return ShareReply(after, answer if position is None or after == position else None)
