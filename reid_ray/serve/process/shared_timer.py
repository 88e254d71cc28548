"""One timer of the event loop for many that are given the same time: a timer each costs more than what most of them wait for.

Knows asyncio's clock; not what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting", bound=Hashable)


class SharedTimer(Generic[Waiting]):
    """Calls `late` for each that has not ended so many seconds after it began; one event loop's at a time.

    Args:
        patience_s: that each is given.
        late: called once for each that takes longer, which has ended then.
    """

    def __init__(self, patience_s: float, late: Callable[[Waiting], object]) -> None:
        self._patience_s, self._late = patience_s, late
        self._due: dict[Waiting, float] = {}  # in the order in which they begin, and so that in which they are due
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many have begun and not ended."""
        return len(self._due)

    def begin(self, waiting: Waiting) -> None:
        """From now on; nothing where it has begun already."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._next = loop, None
            self._due.clear()
        self._due.setdefault(waiting, loop.time() + self._patience_s)
        if self._next is None:
            self._next = loop.call_later(self._patience_s, self._look)

    def end(self, waiting: Waiting) -> None:
        """It is not late; nothing where it has ended already."""
        self._due.pop(waiting, None)

    def _look(self) -> None:
        loop, self._next = asyncio.get_running_loop(), None
        while self._due:
            waiting, due = next(iter(self._due.items()))
            if due > loop.time():
                self._next = loop.call_at(due, self._look)
                return
            del self._due[waiting]
            self._late(waiting)
