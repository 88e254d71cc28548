"""What building a gallery costs: Ray tasks that seal segments beside one writer that adds rows, and the memory of the process that asks.

    python benchmarks/gallery_building.py --out benchmarks/results/gallery_building-DATE.json [--quick]

Tables as the embed job writes them: 512 dimensions, thumbnails of 4 kB, files of 50,000 rows. Each arm runs in a process of its own on a
Ray of two CPUs that stands already; it gives seconds and by how much its resident memory grew at most. Sizes are a quarter and the whole
of 400,000 rows (of 160,000 with --quick); memory that does not grow with the rows is the claim.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, in_own_process, peak_extra_bytes, run_benchmark
from reid_ray.config.common import RayConfig
from reid_ray.gallery.config import GalleryConfig
from reid_ray.records import EMBEDDINGS, conform
from reid_ray.retrieval.index.table_adding import ADDED, add_tables
from reid_ray.runtime import ray_session

DIM, FILE_ROWS, PICTURE = 512, 50_000, 4_000
ARMS = {"two tasks": True, "one writer's log": False}


def write_tables(folder: Path, rows: int, *, encoder: str = "e", picture: int = PICTURE) -> None:
    """Random unit vectors and pictures of so many random bytes, in files below `folder`; another encoder's vectors are others."""
    rng = np.random.default_rng(list(encoder.encode()))
    folder.mkdir()
    for start in range(0, rows, FILE_ROWS):
        count = min(FILE_ROWS, rows - start)
        vectors = rng.normal(size=(count, DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = [f"crop-{start + at:09d}" for at in range(count)]
        columns = {
            "item_id": ids,
            "kind": ["image"] * count,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM),
            "status": ["ok"] * count,
            "image_id": ids,
            "person_id": (np.arange(start, start + count) // 20).astype(np.int32),
            "camera_id": rng.integers(8, size=count).astype(np.int32),
        }
        table = conform(pa.table(columns), EMBEDDINGS, origin="rows")
        table = table.append_column("encoder_fingerprint", pa.array([encoder] * count))
        table = table.append_column("thumbnail", pa.array([rng.bytes(picture) for _ in range(count)], pa.binary()))
        pq.write_table(table, folder / f"{start:09d}.parquet", compression="zstd", row_group_size=25_000)


def build(tables: str, gallery: str, by_tasks: bool) -> dict[str, float]:
    """Build a gallery; seconds and bytes."""
    found: dict[str, float] = {}

    def run() -> None:
        started = time.perf_counter()
        found["rows"] = add_tables(gallery, [tables], GalleryConfig(), by_tasks=by_tasks)[ADDED]
        found["seconds"] = time.perf_counter() - started

    with ray_session(RayConfig(address="local", local_cpus=2)):
        found["peak_mb"] = peak_extra_bytes(run) / 1e6
    return found


def run(report: Report, quick: bool) -> None:
    """All arms at two sizes."""
    rows = 160_000 if quick else 400_000
    peaks, rates = {}, {}
    for count in (rows // 4, rows):
        with tempfile.TemporaryDirectory() as temporary:
            write_tables(Path(temporary) / "tables", count)
            for arm in ARMS:
                told = in_own_process(__file__, "--arm", arm, f"{temporary}/tables", f"{temporary}/{arm}")
                peaks[arm, count], rates[arm, count] = told["peak_mb"], told["rows"] / told["seconds"]
                report.row(arm=arm, rows=told["rows"], seconds=told["seconds"], rows_per_s=rates[arm, count], peak_mb=told["peak_mb"])
    tasks, alone = ARMS
    report.claim("rows a second of two tasks / of one writer", rates[tasks, rows] / rates[alone, rows], ">=", 1.0)
    report.claim("MB by which the driver grows from a quarter of the rows to all", peaks[tasks, rows] - peaks[tasks, rows // 4], "<=", 50)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--arm"]:
        print(json.dumps(build(sys.argv[3], sys.argv[4], ARMS[sys.argv[2]])))
    else:
        sys.exit(run_benchmark(__doc__ or "", run))
