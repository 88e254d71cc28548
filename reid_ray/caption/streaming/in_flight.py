"""In-flight record: a small file of this node that tells which rows were with an actor's engine when its process died.

Knows names and lines. Lines are handed to the kernel and not synced: they must outlive the process, not the machine.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

_REWRITE_AFTER = 1 << 20  # bytes of lines, after which the file begins anew with what is open


class InFlightRecord:
    """Rows that are with an engine, as lines `+name` and `-name`. One process writes it, from any of its threads.

    Args:
        path: of the file; what an earlier process left there is read first, see `left_by`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, None] = {}
        self._lock = threading.Lock()
        self._begin()

    def enter(self, name: str) -> None:
        """A row goes to the engine."""
        with self._lock:
            self._open[name] = None
            self._say(f"+{name}\n")

    def leave(self, name: str) -> None:
        """A row came back."""
        with self._lock:
            self._open.pop(name, None)
            self._say(f"-{name}\n")

    def _say(self, line: str) -> None:
        self._size += os.write(self._file, line.encode())
        if self._size > _REWRITE_AFTER:
            os.close(self._file)
            self._begin()

    def _begin(self) -> None:
        fresh = self._path.with_suffix(".new")
        self._file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.write(self._file, "".join(f"+{name}\n" for name in self._open).encode())
        fresh.replace(self._path)


def left_by(path: Path) -> set[str] | None:
    """Rows that were with the engine of the process that wrote the file; None if there is no file, as on another node."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    names: dict[str, None] = {}
    for line in lines:
        if line.startswith("+"):
            names[line[1:]] = None
        else:
            names.pop(line[1:], None)
    return set(names)
