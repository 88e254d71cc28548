"""Admission control of an actor: how many rows, and bytes of them, are with its engine at once, and which rows may be there together.

Rows that were there when a process died (suspects) come back in isolation groups: while one is with the engine, nothing else is, so that
another death incriminates that group alone. Knows names of groups and counts; not rows, engines or what a death is.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
class _Line:
    free: int = 0  # rows of no group that wait
    listener: Callable[[], None] | None = None


@dataclass
class Admission:
    """The gate before an engine; all methods may be called from any thread.

    Rows of no group enter line by line, in the order in which the lines came: were all let in by turns, all would end together, and the
    engine run dry before whoever brings lines has brought the next.

    size: rows that may be with the engine.
    always: rows of these whose memory is not asked for: those that the engine decodes together.
    most_bytes: what all that are with the engine may hold for a further one to be let in; None: anything.
    width: lines whose rows enter by turns: the first of those that have any.
    """

    size: int
    always: int = 1
    most_bytes: int | None = None
    width: int = 1
    _inside: int = 0
    _passed: bool = False
    _held: int = 0
    _turn: int = 0
    _now: Group = FREE
    _waiting: Counter[Group] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _lines: dict[object, _Line] = field(default_factory=dict)

    def announce(self, group: Group, rows: int, line: object = None) -> None:
        """So many rows of a group will ask to enter: suspects go before free rows, so the gate must know of them."""
        with self._lock:
            self._waiting[group] += rows
            if group == FREE:
                self._lines.setdefault(line, _Line()).free += rows

    def withdraw(self, group: Group, rows: int, line: object = None) -> None:
        """They will not ask any more."""
        with self._lock:
            self._waiting[group] -= rows
            if group == FREE and line in self._lines:
                self._lines[line].free -= rows
                self._forget(line)

    def try_enter(self, group: Group, line: object = None) -> bool:
        """Let one announced row in, if there is room, it is its line's turn, and nobody is there who must not be together with it."""
        follows: list[_Line] = []
        with self._lock:
            if not self._room() or group != self._next() or (group == FREE and line not in (entering := self._entering())):
                return False
            self._now = group
            self._inside += 1
            self._waiting[group] -= 1
            if group == FREE:
                self._lines[line].free -= 1
                if not self._lines[line].free:
                    follows = [self._lines[other] for other in self._entering() if other not in entering]
        self._tell(follows)
        return True

    def hold(self, held: int) -> None:
        """What a row that was let in holds has grown by so many bytes, or shrunk."""
        with self._lock:
            self._held += held

    def leave(self, held: int = 0, line: object = None, *, takes_the_place: bool = False) -> None:
        """A row that was let in is done; one of the lines whose turn it is is told, all of them where groups take turns.

        Args:
            held: bytes that it held.
            line: its own.
            takes_the_place: whoever calls will try to enter next, so that none need be woken for the place if it is its line's turn.
        """
        with self._lock:
            self._inside -= 1
            self._passed = True
            self._held -= held
            if self._now != FREE or any(rows > 0 for group, rows in self._waiting.items() if group != FREE):
                told = list(self._lines.values())
            else:
                entering = self._entering()
                self._turn += 1
                told = [] if not entering or (takes_the_place and line in entering) else [self._lines[entering[self._turn % len(entering)]]]
        self._tell(told)

    @contextmanager
    def listening(self, listener: Callable[[], None], line: object = None) -> Iterator[None]:
        """Have a function called, from any thread, when there may be room for a row of a line."""
        with self._lock:
            self._lines.setdefault(line, _Line()).listener = listener
        try:
            yield
        finally:
            with self._lock:
                self._lines[line].listener = None
                self._forget(line)

    @property
    def waiting(self) -> int:
        """Rows that were announced and not let in."""
        with self._lock:
            return self._waiting.total()

    def _entering(self) -> list[object]:
        """The lines whose turn it is."""
        return list(itertools.islice((name for name, line in self._lines.items() if line.free), self.width))

    def _forget(self, line: object) -> None:
        if not self._lines[line].free and self._lines[line].listener is None:
            del self._lines[line]

    @staticmethod
    def _tell(lines: Iterable[_Line]) -> None:
        for line in lines:
            if (listener := line.listener) is not None:
                listener()

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
