"""Rate limits: a token bucket for each caller or address, in bounded memory.

Knows keys and seconds. Of more keys than it keeps, the one that was quiet longest is forgotten, which gives it a full bucket again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_MOST = 10_000  # keys that are kept


class RateLimit:
    """So many a second, and `burst` at once after a pause.

    Args:
        per_second: how fast a bucket fills.
        burst: how much it holds, at least 1.
    """

    def __init__(self, per_second: float, burst: float, *, most: int = _MOST, ticks: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._most, self._ticks = per_second, burst, most, ticks
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (level, when)

    def take(self, key: str) -> float:
        """Take one from a key's bucket. Returns 0, or the seconds until there is one to take."""
        now = self._ticks()
        level, then = self._levels.get(key, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._per_second)
        wait = 0.0 if level >= 1 else (1 - level) / self._per_second
        self._levels[key] = (level - 1 if wait == 0 else level, now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return wait

    def __len__(self) -> int:
        """Keys that are kept."""
        return len(self._levels)
