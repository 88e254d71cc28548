"""How the seconds of preparing grow with the set: a small set is prepared over and over while a large one is.

A machine that others use too is a fifth faster in one minute than in the next, and the largest set takes a quarter of an hour. Prepared
at once, both sets meet the same machine: of each pair, the logarithm of the ratio of their seconds stands over that of their sizes, and
the slope is that of the line through the origin, with its 95 % interval (Student's t). Used by prepare.py.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness import in_own_process

Prepared = dict[str, Any]  # seconds, cpu_seconds, peak_bytes of one preparation


def side_by_side(script: str, small: Path, large: Callable[[], Prepared]) -> tuple[list[Prepared], Prepared]:
    """Prepare the large set once and the small one for as long as that takes.

    The large one begins when the small one was prepared once and what was written until then is on the disk: the first preparation reads
    its tables from the disk and starts its process's threads, and counts for nothing.

    Args:
        script: run with --again, `small`, a folder and a file, it calls `prepare_again` with them and prints {"found": what that returned}.
        small: tables of the small set.
        large: prepares the large set, in a process of its own.

    Returns:
        (what each preparation of the small one took that ended meanwhile, or the first one if none did; what that of the large one took).
    """
    with tempfile.TemporaryDirectory(prefix="prepare_bench_") as scratch, ThreadPoolExecutor() as pool:
        over = Path(scratch) / "over"
        again = pool.submit(in_own_process, script, "--again", str(small), scratch, str(over))
        try:
            while not (_warm(over).exists() or again.done()):
                time.sleep(0.05)
            os.sync()
            took = large()
        finally:
            over.touch()
        found = again.result()["found"]
        return found[:-1] or found, took


def prepare_again(prepare: Callable[[Path], Prepared], scratch: Path, over: Path) -> list[Prepared]:
    """What each preparation took that was begun after a first one and before the file `over` was there, one after the other."""
    found: list[Prepared] = []
    while not over.exists():
        out = scratch / "out"
        out.mkdir()
        took = prepare(out)
        shutil.rmtree(out)
        if _warm(over).exists():
            found.append(took)
        else:
            _warm(over).touch()
    return found


def _warm(over: Path) -> Path:
    """The file that tells that the small set was prepared once."""
    return over.with_name("warm")


def slope_of(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """(slope, upper end of its 95 % interval) of log seconds over log images.

    Args:
        pairs: of each pair: how many times as many images the large set has, and how many times the small one's mean seconds it took.
    """
    from scipy import stats

    logs = [(math.log(size), math.log(seconds)) for size, seconds in pairs]
    weight = sum(x * x for x, _ in logs)
    slope = sum(x * y for x, y in logs) / weight
    variance = sum((y - slope * x) ** 2 for x, y in logs) / (len(logs) - 1) / weight
    return slope, slope + float(stats.t.ppf(0.975, len(logs) - 1)) * math.sqrt(variance)


def mean_seconds(found: list[Prepared]) -> float:
    """Mean seconds of preparations that followed one another."""
    return statistics.fmean(each["seconds"] for each in found)
