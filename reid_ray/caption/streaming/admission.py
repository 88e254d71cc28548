"""Admission control of an actor: how many rows, and bytes of them, are with its engine at once, and which rows may be there together.

Rows that were there when a process died (suspects) come back in isolation groups: while one is with the engine, nothing else is, so that
another death incriminates that group alone. Knows names of groups and counts; not rows, engines or what a death is.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Group:
    """An isolation group; those of fewer deaths come first, rows of no group (deaths = -1) last.

    deaths: that its rows have seen.
    number: tells groups apart.
    last: comes when a row has passed since the process began, if any waits: that one shows that the engine works.
    """

    deaths: int
    number: int
    last: bool = False


FREE = Group(-1, 0)  # of rows under no suspicion


@dataclass
class Admission:
    """The gate before an engine; all methods may be called from any thread.

    size: rows that may be with the engine.
    always: rows of these whose memory is not asked for: those that the engine decodes together.
    most_bytes: what all that are with the engine may hold for a further one to be let in; None: anything.
    """

    size: int
    always: int = 1
    most_bytes: int | None = None
    _inside: int = 0
    _passed: bool = False
    _held: int = 0
    _now: Group = FREE
    _waiting: Counter[Group] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listeners: deque[Callable[[], None]] = field(default_factory=deque)

    def announce(self, group: Group, rows: int) -> None:
        """So many rows of a group will ask to enter: suspects go before free rows, so the gate must know of them."""
        with self._lock:
            self._waiting[group] += rows

    def withdraw(self, group: Group, rows: int) -> None:
        """They will not ask any more."""
        with self._lock:
            self._waiting[group] -= rows

    def try_enter(self, group: Group) -> bool:
        """Let one announced row in, if there is room and nobody is there who must not be together with it."""
        with self._lock:
            if not self._room() or group != self._next():
                return False
            self._now = group
            self._inside += 1
            self._waiting[group] -= 1
            return True

    def hold(self, held: int) -> None:
        """What a row that was let in holds has grown by so many bytes, or shrunk."""
        with self._lock:
            self._held += held

    def leave(self, held: int = 0, *, takes_the_place: bool = False) -> None:
        """A row that was let in is done; one of those who listen is told, all of them where groups take turns.

        Args:
            held: bytes that it held.
            takes_the_place: whoever calls will try to enter next, so that none need be woken for the place.
        """
        with self._lock:
            self._inside -= 1
            self._passed = True
            self._held -= held
            taking_turns = self._now != FREE or any(rows > 0 for group, rows in self._waiting.items() if group != FREE)
            told = list(self._listeners) if taking_turns else [] if takes_the_place else list(self._listeners)[:1]
            if told:
                self._listeners.rotate(-1)
        for listener in told:
            listener()

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Have a function called, from any thread, when there may be room."""
        with self._lock:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    @property
    def waiting(self) -> int:
        """Rows that were announced and not let in."""
        with self._lock:
            return self._waiting.total()

    def _room(self) -> bool:
        if self._inside < self.always or self.most_bytes is None:
            return self._inside < self.size
        return self._inside < self.size and self._held + self._held // max(1, self._inside) <= self.most_bytes

    def _next(self) -> Group:
        """Whose turn it is. A group stays until its rows are out, free rows until suspects wait."""
        suspects = [group for group, rows in self._waiting.items() if rows > 0 and group != FREE]
        if not self._passed and self._waiting[FREE] > 0:
            suspects = [group for group in suspects if not group.last]
        if self._inside:
            return self._now if self._now != FREE or not suspects else Group(-2, 0)
        return min(suspects, key=lambda group: (group.last, group), default=FREE)
