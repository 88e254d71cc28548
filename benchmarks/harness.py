"""What every benchmark shares: timing turn by turn, peak memory, and the one form its result has.

A result is {"environment", "rows", "claims"}: hardware, versions, commit, command and load; what was measured, with repeats and
spread; and each claim with its value, its goal and whether it holds. Knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reid_ray.storage import environment, write_json


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs: wall clock, and CPU time of all threads (which other programs on the machine disturb less)."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    @property
    def best_s(self) -> float:
        """Shortest wall time: what the machine can do when nobody else uses it."""
        return min(self.wall_s)

    @property
    def best_cpu_s(self) -> float:
        """Least CPU time."""
        return min(self.cpu_s)

    def row(self) -> dict[str, Any]:
        """Columns for a result row."""
        return {
            "repeats": len(self.wall_s),
            "seconds_min": round(self.best_s, 5),
            "seconds_median": round(statistics.median(self.wall_s), 5),
            "seconds_max": round(max(self.wall_s), 5),
            "cpu_seconds_min": round(self.best_cpu_s, 5),
        }


@dataclass
class Report:
    """Rows and claims of one benchmark, collected while it runs."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)

    def row(self, **columns: Any) -> None:
        """Add a row."""
        self.rows.append(columns)

    def claim(self, name: str, value: float, bound: Literal[">=", "<="], goal: float) -> None:
        """Add a claim: `value` is to be at least, or at most, `goal`."""
        holds = value >= goal if bound == ">=" else value <= goal
        self.claims.append({"name": name, "value": float(value), "goal": f"{bound} {goal:g}", "holds": bool(holds)})


def run_benchmark(description: str, run: Callable[[Report, bool], None], argv: Sequence[str] | None = None) -> int:
    """Parse --out FILE and --quick, run, write the JSON, print the tables. Returns the exit code: 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="FILE", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer repeats: minutes, not tens of minutes")
    arguments = parser.parse_args(argv)
    report = Report()
    facts = {**environment(), "quick": arguments.quick, "load_average_before": [round(load, 2) for load in os.getloadavg()]}
    started = time.perf_counter()
    run(report, arguments.quick)
    facts["load_average_after"] = [round(load, 2) for load in os.getloadavg()]
    facts["seconds"] = round(time.perf_counter() - started, 1)
    facts["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {"environment": facts, "rows": report.rows, "claims": report.claims})
    print_table(report.rows)
    print()
    print_table(report.claims)
    return 0 if all(claim["holds"] for claim in report.claims) else 1


def time_turns(runs: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, Timing]:
    """Time functions turn by turn (a b c, a b c, ...), so that a slow spell of the machine hits all alike. Warm up before."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            gc.collect()
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            run()
            wall[name].append(time.perf_counter() - wall_start)
            cpu[name].append(time.process_time() - cpu_start)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in runs}


def peak_extra_bytes(run: Callable[[], Any]) -> int:
    """How much resident memory grows at most while `run` runs, in this process (bytes).

    The kernel's own high-water mark, reset before the run; where it cannot be reset, a thread samples every 2 ms.
    """
    gc.collect()
    _trim()
    before = _status("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        with _sampled("VmRSS", 0.002) as peak:
            run()
        return peak[0] - before
    run()
    return max(0, _status("VmHWM") - before)


@contextmanager
def peak_own_bytes() -> Iterator[list[int]]:
    """[The most memory of its own that this process has while the block runs], without pages of mapped files; looked at every 10 ms."""
    with _sampled("RssAnon", 0.01) as peak:
        yield peak


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as an aligned text table on stdout; columns in order of first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *[[_cell(row.get(name)) for name in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {name}")


def _trim() -> None:
    """Give freed memory back to the system, so that reusing it counts as growth again."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _sampled(name: str, every_s: float) -> Iterator[list[int]]:
    """[The most of a line of /proc/self/status while the block runs, bytes], looked at now and then by a thread."""
    peak, over = [_status(name)], threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            peak[0] = max(peak[0], _status(name))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def in_own_process(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that a script prints last when it is run, in a Python of its own, with these arguments.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    command = [sys.executable, str(Path(script).resolve()), *arguments]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    inherited = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=inherited)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def drop_pages(folder: Path) -> None:
    """Have the system forget the pages of all files below a folder; those that a process maps stay."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def ratio_interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float | None, float | None]:
    """Of each turn's first number over its second: the geometric mean, and its 95 % interval by Student's t (None of one turn)."""
    from scipy.stats import t

    logs = [math.log(ours / other) for ours, other in pairs]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return round(math.exp(mean), 4), None, None
    half = float(t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / len(logs) ** 0.5
    return round(math.exp(mean), 4), round(math.exp(mean - half), 4), round(math.exp(mean + half), 4)
