"""The best crops of each track: at most so many, at most one of each span of time, chosen as they come.

Knows worth and seconds; not what makes a crop good, nor its picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Row = dict[str, Any]  # at least seconds and worth
_EPSILON = 1e-6


class BestCrops:
    """Of each track, the crops of the most worth, of which no two lie in one span of the footage's time.

    So a person who stands still is not kept four times from one second. What is kept does not depend on the order of the offers, nor on
    whether parts of a track were chosen from apart before: of equal worth, the earlier one counts.

    Args:
        most: of each track; None keeps all.
        span_s: seconds of a span.
    """

    def __init__(self, most: int | None, *, span_s: float) -> None:
        self._most, self._span_s = most, span_s
        self._kept: dict[int, dict[float, Row]] = {}

    def offer(self, track: int, seconds: float, worth: float, cut: Callable[[], Mapping[str, Any]]) -> None:
        """A crop of `track`; `cut` makes the rest of its row, if it is kept for now."""
        kept = self._kept.setdefault(track, {})
        span = seconds if self._most is None or not self._span_s else (seconds + _EPSILON) // self._span_s
        there = kept.get(span)
        if there is not None and not _better(worth, seconds, there):
            return
        if there is None and self._most is not None and len(kept) >= self._most:
            last = min(kept, key=lambda each: (kept[each]["worth"], -kept[each]["seconds"]))
            if not _better(worth, seconds, kept[last]):
                return
            del kept[last]
        kept[span] = {**cut(), "seconds": seconds, "worth": worth}

    def offer_rows(self, track: int, rows: Iterable[Row]) -> None:
        """Crops that were kept elsewhere."""
        for row in rows:
            self.offer(track, row["seconds"], row["worth"], lambda row=row: row)  # type: ignore[misc]

    def of(self, track: int) -> list[Row]:
        """The kept crops of a track in the order of time."""
        return sorted(self._kept.get(track, {}).values(), key=lambda row: row["seconds"])

    def all(self) -> Iterator[tuple[int, Row]]:
        """(track, crop) of all that is kept, tracks in the order of their numbers, crops in that of time."""
        return ((track, row) for track in sorted(self._kept) for row in self.of(track))


def _better(worth: float, seconds: float, than: Row) -> bool:
    return (worth, -seconds) > (than["worth"], -than["seconds"])
