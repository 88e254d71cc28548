"""Thumbnails of a gallery of up to a hundred million items, read one by one by their ids.

    python benchmarks/gallery_thumbnails.py --out benchmarks/results/gallery_thumbnails-DATE.json [--quick]

Segments of a million items with vectors of 8 float16, so that a hundred of them fit on a disk (13 GB), and a thumbnail of 64 bytes that
tells its item; a real one has some thousand, which changes what is read, not how it is found. At each size a process of its own opens the
gallery and reads the thumbnails of ids drawn at random, first each for the first time, then again; all must be right, and an unknown id
must have none. What it holds in memory is told as what is its own and what it maps. Adding through the log is timed as well (batches of
65,536 items).
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
import pyarrow as pa

from benchmarks.harness import Report, run_benchmark
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery

_DIM, _BATCH, _BYTES, _ASKED = 8, 65_536, 64, 2_000
_MILLIONS = (1, 10, 30, 100)

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
asked = [f"item-{number:09d}" for number in np.random.default_rng(int(sys.argv[2])).integers(len(view), size=int(sys.argv[3]))]
times = []
for _ in range(2):
    for item_id in asked:
        started = time.perf_counter()
        picture = view.thumbnail(item_id)
        times.append(time.perf_counter() - started)
        assert picture == item_id.encode().ljust(int(sys.argv[4]), b"."), (item_id, picture)
assert view.thumbnail("nobody") is None
first, again = np.array(times[:len(asked)]) * 1e3, np.array(times[len(asked):]) * 1e3
own, mapped = memory()
print(json.dumps({"items": len(view), "open_s": opened, "open_cpu_s": opened_cpu, "first_ms": float(np.median(first)),
    "first_ms_99": float(np.quantile(first, 0.99)), "again_ms": float(np.median(again)), "again_ms_99": float(np.quantile(again, 0.99)),
    "own_mb": own - before[0], "mapped_mb": mapped - before[1]}))
"""


def _run(report: Report, quick: bool) -> None:
    unit = 5_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix="thumbnails_bench_") as place:
        folder, found = Path(place) / "gallery", []
        create_gallery(folder, dim=_DIM, encoder="e", config=GalleryConfig(segment_rows=unit, merge_rows=unit, dtype="float16"))
        with GalleryWriter(folder) as writer:
            for number in range(_MILLIONS[-1]):
                seconds = _add(writer, number * unit, unit)
                if number + 1 in _MILLIONS:
                    report.row(what="add the last of them, with sealing", items=(number + 1) * unit, a_second=round(unit / seconds))
                    found.append(_looked_at(folder, number))
                    report.row(what="thumbnails one by one", **{name: round(value, 4) for name, value in found[-1].items()})
        files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        report.row(what="on the disk", items=_MILLIONS[-1] * unit, bytes_an_item=round(files / _MILLIONS[-1] / unit))
    report.claim(
        f"a thumbnail of {found[-1]['items']:,}, 99th percentile, files in memory, milliseconds", found[-1]["again_ms_99"], "<=", 20
    )
    report.claim(f"memory of its own of a reader of {found[-1]['items']:,}, MB", found[-1]["own_mb"], "<=", 500)


def _add(writer: GalleryWriter, first: int, count: int) -> float:
    """Add items from number `first` on; the seconds of adding them, without those of making them up."""
    rng, seconds = np.random.default_rng(first), 0.0
    for start in range(first, first + count, _BATCH):
        ids = [f"item-{number:09d}" for number in range(start, min(start + _BATCH, first + count))]
        vectors = rng.normal(size=(len(ids), _DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        pictures = pa.array([each.encode().ljust(_BYTES, b".") for each in ids], pa.binary())
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), _DIM)
        table = pa.table({"item_id": ids, "embedding": embedding, "thumbnail": pictures})
        started = time.perf_counter()
        writer.add(table, encoder="e")
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    writer.seal()
    return seconds + time.perf_counter() - started


def _looked_at(folder: Path, seed: int) -> dict[str, float]:
    """What a process of its own says of opening the gallery and reading thumbnails."""
    command = [sys.executable, "-c", _CHILD, *map(str, (folder, seed, _ASKED, _BYTES))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1], check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2_000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", _run))
