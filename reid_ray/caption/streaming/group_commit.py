"""Group commit: finished rows of many threads become durable together, after so many rows or seconds, or as soon as somebody waits.

Knows rows and time; not where they go. A process that is killed loses what has not been written yet: one group at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


class GroupCommit:
    """Collects rows and writes them in groups, in a thread of its own.

    Args:
        write: makes rows durable. A table is made of a whole group there: of each row by itself it would cost thirty times as much.
        rows: a group is written when it holds so many.
        seconds: or when its first rows have waited so long.
    """

    def __init__(self, write: Callable[[list[Row]], None], *, rows: int, seconds: float) -> None:
        self._write, self._rows, self._seconds = write, rows, seconds
        self._group: list[Row] = []
        self._since = 0.0
        self._number, self._written, self._asked = 0, -1, -1  # of the group that collects now; the last durable; the last to be flushed
        self._error: Exception | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="group-commit", daemon=True).start()

    def add(self, rows: Sequence[Row]) -> int:
        """Add finished rows, which nobody changes any more; returns the number of their group, to wait for."""
        with self._changed:
            first = not self._group
            if first:
                self._since = time.monotonic()
            self._group.extend(rows)
            if first or self._due():  # woken for nothing, the thread would take the interpreter from the engine's
                self._changed.notify_all()
            return self._number

    def wait(self, number: int) -> None:
        """Have a group written now, and return when it is durable; raises what kept it from being written."""
        with self._changed:
            self._asked = max(self._asked, number)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._written >= number or self._error is not None)
            if self._error is not None and self._written < number:
                raise self._error

    def flush(self) -> None:
        """Return when all that was added is durable."""
        with self._changed:
            number = self._number if self._group else self._number - 1
        self.wait(number)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due():
                    self._changed.wait(self._patience())
                group, self._group = self._group, []
                number, self._number = self._number, self._number + 1
            try:
                self._write(group)
            except Exception as error:  # noqa: BLE001
                with self._changed:
                    self._error = error  # whoever waits raises it
                    self._changed.notify_all()
                return
            with self._changed:
                self._written = number
                self._changed.notify_all()

    def _due(self) -> bool:
        if not self._group:
            return False
        return self._asked >= self._number or len(self._group) >= self._rows or time.monotonic() - self._since >= self._seconds

    def _patience(self) -> float | None:
        return max(0.0, self._since + self._seconds - time.monotonic()) if self._group else None
