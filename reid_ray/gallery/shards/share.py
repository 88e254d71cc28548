"""A share of a gallery: neighbouring segments, about as many items as every other share, and for the last one what the log holds.

Shares are in the order of adding, so that equal scores are ordered by share, and then by place in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple


class Position(NamedTuple):
    """How far a reader has read: a generation, and frames of its log."""

    generation: int
    frames: int


@dataclass(frozen=True)
class Share:
    """One of `of` shares, `number` counts from 0."""

    number: int = 0
    of: int = 1

    @property
    def holds_log(self) -> bool:
        """Whether what no segment holds yet is searched here; what the log deletes is heeded in every share."""
        return self.number == self.of - 1

    def holds(self, rows: Sequence[int]) -> list[bool]:
        """Which segments it has, by the rows of each: those whose middle lies in its part of all rows."""
        total = max(sum(rows), 1)
        middles = (2 * stop - count for stop, count in zip(accumulate(rows), rows, strict=True))  # doubled, so that they are whole
        return [min(middle * self.of // (2 * total), self.of - 1) == self.number for middle in middles]


WHOLE = Share()
NOTHING = Share(-1, 1)  # for who wants to know of the gallery alone: its columns, and what is to be erased
