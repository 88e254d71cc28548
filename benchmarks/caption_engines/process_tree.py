"""What this process and all that it started hold and use: allocated memory by part at its peak, and CPU seconds by time.

Allocated are anonymous and shared pages (smaps_rollup; a shared page counts once). Pages of files, the code of libraries for the most
part, stay out: the kernel takes and drops them as it likes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil

Parts = dict[str, tuple[int, int]]  # part -> (processes, bytes)
ENGINE = "Caption"  # in the title of an actor that holds an engine


class Watched:
    """`with Watched() as tree: ...`: looks at all processes, `interval_s` after `interval_s`.

    `peak` is what each part held when all together held most, `most` the most of each process of the part "engine"; `cpu` the seconds
    that all have used by each moment.
    """

    def __init__(self, *, interval_s: float = 0.25) -> None:
        self.peak: Parts = {}
        self.most: dict[int, int] = {}  # process of the part "engine" -> bytes
        self._used: dict[int, float] = {}
        self._cpu: list[tuple[float, float]] = []
        self._interval_s, self._ended = interval_s, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process-tree", daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def cpu_s(self, start: float, end: float) -> float:
        """CPU seconds of all processes between two moments (seconds since the epoch), interpolated between looks."""
        moments, used = zip(*self._cpu, strict=True)
        before, after = np.interp([start, end], moments, used)
        return float(after - before)

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            parts = self._look()
            if sum(held for _, held in parts.values()) > sum(held for _, held in self.peak.values()):
                self.peak = parts

    def _look(self) -> Parts:
        me = psutil.Process()
        parts: Parts = {"driver": (0, 0), "engine": (0, 0), "ray": (0, 0)}
        for process in [me, *me.children(recursive=True)]:
            try:
                title, used = " ".join(process.cmdline()), process.cpu_times()
                held = _allocated(process.pid)
            except (psutil.NoSuchProcess, OSError):
                continue  # it ended between the listing and the look
            part = "driver" if process == me else "engine" if ENGINE in title else "ray"
            parts[part] = (parts[part][0] + 1, parts[part][1] + held)
            self._used[process.pid] = used.user + used.system
            if part == "engine":
                self.most[process.pid] = max(held, self.most.get(process.pid, 0))
        self._cpu.append((time.time(), sum(self._used.values())))
        return parts


def peaks_of(runs: Sequence[Callable[[], object]]) -> list[Parts]:
    """What the parts held at the peak of each run, one run after the other."""
    peaks = []
    for run in runs:
        with Watched() as tree:
            run()
        peaks.append(tree.peak)
    return peaks


def _allocated(process: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
