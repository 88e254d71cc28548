"""Peak memory (resident set size) of a process and everything it started, sampled while a block runs.

Knows processes; not what they do. The sum of resident sizes counts shared pages once per process, so it is an upper bound.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self


class PeakMemory:
    """`with PeakMemory() as peak: ...; peak.bytes` is the largest sum of resident sizes of this process and its descendants."""

    def __init__(self, *, interval_s: float = 0.5) -> None:
        self.bytes = 0
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        self.bytes = max(self.bytes, resident_bytes())


def resident_bytes() -> int:
    """Sum of the resident sizes (bytes) of this process and its descendants."""
    import psutil

    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended between the listing and the look
    return total
