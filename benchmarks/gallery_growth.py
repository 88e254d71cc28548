"""A gallery that grows from one to ten million items: adding, opening, searching, and the memory that stays.

    python benchmarks/gallery_growth.py --out benchmarks/results/gallery_growth-DATE.json [--quick]

Vectors of 256 float32, segments of a million (a fiftieth of everything with --quick). At each size a process of its own opens the gallery,
after its imports, and searches for one and for 64 queries; its memory is told as what is its own (anonymous) and what it shares with the
page cache (mapped files). Files are in the page cache as far as memory allows: 10 M take 13 GB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.gallery_crowd import people, table_of
from benchmarks.harness import Report, run_benchmark
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery

DIM, MILLIONS = 256, (1, 2, 4, 7, 10)

_CHILD = """
import json, sys, time
import numpy as np
from reid_ray.gallery.gallery_view import GalleryView

def memory():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(lines[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile")]

before = memory()
started, cpu = time.perf_counter(), time.process_time()
view = GalleryView(sys.argv[1])
opened, opened_cpu = time.perf_counter() - started, time.process_time() - cpu
after = memory()
started = time.perf_counter()
items = len(view)
counted = time.perf_counter() - started
query = np.load(sys.argv[2])
seconds = {}
for queries in (1, 64):
    times = []
    for _ in range(4):
        started = time.perf_counter()
        hits = view.search(query[:queries], 20)
        times.append(time.perf_counter() - started)
    seconds[queries] = times
    assert all(len({hit.item_id for hit in found}) == 20 for found in hits)
started = time.perf_counter()
view.search(query[:1], 20, where={"share": {"to": 9}})
filtered = time.perf_counter() - started
print(json.dumps({"items": items, "open_s": opened, "open_cpu_s": opened_cpu, "count_s": counted, "own_mb_of_opening": after[0] - before[0],
    "first_query_s": seconds[1][0], "query_s": min(seconds[1]), "queries_64_s": min(seconds[64]), "first_at_1_percent_s": filtered,
    "own_mb": memory()[0], "mapped_mb": memory()[1]}))
"""


def growth(report: Report, folder: Path, unit: int) -> None:
    """Fill a gallery, and look at it at each of some sizes; `unit` items stand for a million."""
    create_gallery(folder / "growing", dim=DIM, encoder="e", config=GalleryConfig(segment_rows=unit, merge_rows=unit))
    persons = max(1, unit // 5)
    np.save(folder / "query.npy", people(64, dim=DIM, seed=99, persons=persons))
    opened = {}
    with GalleryWriter(folder / "growing") as writer:
        for number in range(MILLIONS[-1]):
            vectors = people(unit, dim=DIM, seed=number, persons=persons)
            share = np.random.default_rng(number).integers(1000, size=unit)
            seconds = 0.0
            for start in range(0, unit, 8_192):
                part = slice(start, min(start + 8_192, unit))
                table = table_of(vectors[part], number * unit + start, share[part])
                started = time.perf_counter()
                writer.add(table, encoder="e")
                seconds += time.perf_counter() - started
            del vectors
            report.row(what="add, with sealing", items=(number + 1) * unit, seconds=round(seconds, 2), a_second=round(unit / seconds))
            if number + 1 in MILLIONS:
                found = looked_at(folder)
                opened[number + 1] = found
                report.row(what="open and search", **{name: round(value, 5) for name, value in found.items()})
    last = opened[MILLIONS[-1]]
    report.claim(f"opening {last['items']:,} x {DIM}, seconds of CPU", last["open_cpu_s"], "<=", 2.0)
    per_item = [found["query_s"] / found["items"] for found in opened.values()]
    report.claim("a lone query's seconds an item, largest over smallest size", per_item[-1] / per_item[0], "<=", 1.2)


def looked_at(folder: Path) -> dict[str, float]:
    """What a process of its own says of opening and searching."""
    command = [sys.executable, "-c", _CHILD, str(folder / "growing"), str(folder / "query.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1], check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2_000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(report: Report, quick: bool) -> None:
    """The benchmark alone."""
    with tempfile.TemporaryDirectory() as place:
        growth(report, Path(place), 20_000 if quick else 1_000_000)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
