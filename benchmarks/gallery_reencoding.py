"""What another encoder costs a gallery: every item gets a new vector and keeps its id, columns and picture, while others search.

    python benchmarks/gallery_reencoding.py --out benchmarks/results/gallery_reencoding-DATE.json [--quick]

Galleries of a quarter of a million and of a million items (a tenth with --quick), 512 dimensions, thumbnails of 500 bytes, built by two Ray
tasks. Then `reencode_by_tables` takes the vectors of another encoder from tables, sealed by two tasks, in a process of its own: seconds,
CPU seconds of that process, and by how much its own memory grew (without pages of mapped files). Meanwhile another process searches the
gallery, one query after the other, and the slowest of its searches is told. In the end the vectors of a thousand items of a file drawn at
random must be those of the tables.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gallery_building import DIM, build, write_tables
from benchmarks.harness import Report, in_own_process, peak_own_bytes, run_benchmark
from reid_ray.config.common import RayConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.retrieval.index.table_reencoding import reencode_by_tables
from reid_ray.runtime import ray_session

_PICTURE, _ASKED = 500, 1_000


def main() -> int:
    if sys.argv[1:2] == ["--build"]:
        print(json.dumps(build(sys.argv[2], sys.argv[3], True)))
        return 0
    if sys.argv[1:2] == ["--reencode"]:
        print(json.dumps(_reencode(sys.argv[2], sys.argv[3])))
        return 0
    if sys.argv[1:2] == ["--search"]:
        print(json.dumps(_searches(sys.argv[2], Path(sys.argv[3]))))
        return 0
    return run_benchmark(__doc__ or "", _run)


def _run(report: Report, quick: bool) -> None:
    rows, peaks, rates = 100_000 if quick else 1_000_000, {}, {}
    for count in (rows // 4, rows):
        with tempfile.TemporaryDirectory(prefix="reencoding_bench_") as temporary:
            gallery = f"{temporary}/gallery"
            write_tables(Path(temporary) / "before", count, picture=_PICTURE)
            built = in_own_process(__file__, "--build", f"{temporary}/before", gallery)
            report.row(what="built", items=count, seconds=built["seconds"], peak_mb=built["peak_mb"])
            shutil.rmtree(f"{temporary}/before")
            write_tables(Path(temporary) / "after", count, encoder="other", picture=1)
            over = Path(temporary) / "over"
            searching = subprocess.Popen([sys.executable, __file__, "--search", gallery, str(over)], stdout=subprocess.PIPE, text=True)
            try:
                told = in_own_process(__file__, "--reencode", gallery, f"{temporary}/after")
            finally:
                over.touch()
                searches = json.loads(searching.communicate()[0].splitlines()[-1])
            _check(gallery, Path(temporary) / "after", count)
            peaks[count], rates[count] = told["peak_mb"], count / told["seconds"]
            report.row(
                what="re-encoded", items=count, **{name: round(value, 1) for name, value in told.items()}, a_second=round(rates[count])
            )
            report.row(what="searches meanwhile", items=count, **searches)
    report.claim("items a second of a million over those of a quarter", rates[rows] / rates[rows // 4], ">=", 0.8)
    report.claim("MB by which the process grows from a quarter of the items to all", peaks[rows] - peaks[rows // 4], "<=", 100)


def _reencode(gallery: str, tables: str) -> dict[str, float]:
    found: dict[str, float] = {}

    with ray_session(RayConfig(address="local", local_cpus=2)):
        started, cpu = time.perf_counter(), time.process_time()
        with peak_own_bytes() as peak:
            before = peak[0]
            done = reencode_by_tables(gallery, [tables], by_tasks=True)
        found.update(living=done.living, seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu)
        found["peak_mb"] = (peak[0] - before) / 1e6
    return found


def _searches(gallery: str, over: Path) -> dict[str, float]:
    """How many searches one reader did until the file `over` was there, and milliseconds of the middle and of the slowest one."""
    view, rng, times = GalleryView(gallery), np.random.default_rng(0), []
    while not over.exists():
        query = rng.normal(size=(1, DIM)).astype(np.float32)
        started = time.perf_counter()
        view.refresh()
        assert len(view.search(query / np.linalg.norm(query), 20)[0]) == 20
        times.append(time.perf_counter() - started)
        time.sleep(0.2)
    return {"searches": len(times), "median_ms": round(1e3 * float(np.median(times)), 1), "slowest_ms": round(1e3 * max(times), 1)}


def _check(gallery: str, tables: Path, count: int) -> None:
    view = GalleryView(gallery)
    assert (len(view), view.manifest.encoder) == (count, "other")
    file = np.random.default_rng(1).choice(sorted(tables.iterdir()))
    rows = pq.read_table(file, columns=["item_id", "embedding"]).slice(0, _ASKED)
    wanted = np.stack(rows["embedding"].to_numpy())
    assert np.allclose(view.vectors(rows["item_id"].to_pylist()), wanted, atol=1e-3)
    assert len(view.thumbnail(rows["item_id"][0].as_py()) or b"") == _PICTURE


if __name__ == "__main__":
    sys.exit(main())
