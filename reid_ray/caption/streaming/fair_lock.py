"""Fair lock: one that goes to whoever waits longest, for threads that have one core between them.

Were they to run at the same time, the system would change between them many times in a step of an engine, and each would find its
instructions and data gone from the core's caches. Knows threads; not what they do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_S = 1.0


class FairLock:
    """One thread at a time, in the order in which they came; whoever ends one turn and begins the next comes after all who wait."""

    def __init__(self) -> None:
        self._lock, self._taken = threading.Lock(), False
        self._waiting: deque[threading.Lock] = deque()  # each is released when its thread's turn begins

    @contextmanager
    def turn(self, watch: Callable[[], object] = lambda: None) -> Iterator[None]:
        """A turn, for the time of the block; a thread that has one must not ask for another.

        Args:
            watch: called now and then while others have theirs; must not raise.
        """
        self._wait(watch)
        try:
            yield
        finally:
            self._pass_on()

    def _wait(self, watch: Callable[[], object]) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        while not mine.acquire(timeout=_LOOK_S):
            watch()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
