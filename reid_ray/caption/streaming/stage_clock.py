"""Stage clock: where an actor's time goes, told by what its threads are at whenever one of them begins or ends something.

Knows causes and seconds; not engines. Every moment counts for one cause, the first in CAUSES that any thread is at: time in which a step
of the engine runs is the engine's, whatever else goes on; only then does it count that pictures are being decoded, and so on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENGINE, DECODE, SCORES, STORAGE, SOURCE = "engine", "decode", "scores", "storage", "source"
CAUSES = (ENGINE, DECODE, SCORES, STORAGE, SOURCE)  # the last: nobody is at anything


class StageClock:
    """Seconds by cause; all methods may be called from any thread, and cost a microsecond.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._at = dict.fromkeys(CAUSES[:-1], 0)  # cause -> how many are at it
        self._seconds = dict.fromkeys(CAUSES, 0.0)
        self._since, self._cause = clock(), SOURCE

    def begin(self, cause: str) -> None:
        """One more is at it."""
        self._change(cause, 1)

    def end(self, cause: str) -> None:
        """One less is at it."""
        self._change(cause, -1)

    @contextmanager
    def at(self, cause: str) -> Iterator[None]:
        """The calling thread is at it, for the time of the block."""
        self._change(cause, 1)
        try:
            yield
        finally:
            self._change(cause, -1)

    def seconds(self) -> dict[str, float]:
        """Seconds so far, by cause."""
        with self._lock:
            self._add()
            return dict(self._seconds)

    def _change(self, cause: str, by: int) -> None:
        with self._lock:
            self._add()
            self._at[cause] += by
            self._cause = next((name for name, there in self._at.items() if there), SOURCE)

    def _add(self) -> None:
        now = self._clock()
        self._seconds[self._cause] += now - self._since
        self._since = now
