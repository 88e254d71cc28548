"""Ingest 100,000 synthetic crops: peak memory, and images a second next to a plain loop over the same files.

    python benchmarks/ingest.py --out benchmarks/results/ingest-DATE.json [--quick]

The loop is what one writes without the job: read every file, decode it, hash it, collect the rows, write one Parquet file. Both run
turn by turn, each in a process of its own so that memory can be told apart; time counts from the first file to the last row written,
without imports. The files are in the page cache for both: --quick takes 5,000 crops.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Report, in_own_process, run_benchmark

_PER_FOLDER = 1_000


def main() -> int:
    return run_benchmark(__doc__ or "", _run)


def _run(report: Report, quick: bool) -> None:
    images, repeats = (5_000, 2) if quick else (100_000, 3)
    with tempfile.TemporaryDirectory(prefix="ingest_bench_") as scratch:
        crops = Path(scratch) / "crops"
        size = write_crops(crops, images)
        seconds: dict[str, list[float]] = {name: [] for name in WORKERS}
        cpu: dict[str, list[float]] = {name: [] for name in WORKERS}
        peaks: dict[str, list[int]] = {name: [] for name in WORKERS}
        for _ in range(repeats):
            for name in WORKERS:
                result = in_own_process(__file__, "--worker", name, str(crops), f"{scratch}/out")
                assert result["images"] == images, f"{name} wrote {result['images']} of {images} images"
                seconds[name].append(result["seconds"])
                cpu[name].append(result["cpu_seconds"])
                peaks[name].append(result["peak_bytes"])
    for name in WORKERS:
        report.row(
            what=name,
            images=images,
            bytes_of_images=size,
            repeats=repeats,
            images_per_s_best=round(images / min(seconds[name])),
            seconds_min=round(min(seconds[name]), 2),
            seconds_max=round(max(seconds[name]), 2),
            cpu_seconds_min=round(min(cpu[name]), 2),
            peak_rss_mb=round(max(peaks[name]) / 1e6),
        )
    report.claim("peak memory of ingest, GB", round(max(peaks["ingest"]) / 1e9, 3), "<=", 2.0)
    report.claim("ingest against a plain loop, images a second", round(min(seconds["plain loop"]) / min(seconds["ingest"]), 2), ">=", 1.0)


def write_crops(folder: Path, images: int) -> int:
    """Write synthetic people as JPEG files, a thousand to a folder; returns their bytes."""
    from reid_ray.config.common import SyntheticConfig
    from reid_ray.data.synthetic.people import SyntheticPeople
    from reid_ray.progress import progress_bar

    people = SyntheticPeople(SyntheticConfig(identities=images // 4, images_per_identity=4))
    size = 0
    with progress_bar("draw crops", total=images) as bar:
        for start in range(0, images, _PER_FOLDER):
            place = folder / f"{start // _PER_FOLDER:04d}"
            place.mkdir(parents=True)
            for row in people.image_table(start, min(start + _PER_FOLDER, images)).to_pylist():
                name = f"{row['person_id']:05d}_c{row['camera_id']}_{bar.n:06d}.jpg"
                (place / name).write_bytes(row["image"])
                size += len(row["image"])
                bar.update(1)
    return size


def run_loop(crops: Path, out: Path) -> int:
    """The plain loop; returns the images written."""
    import hashlib
    import io
    import re

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rows = []
    for path in sorted(crops.rglob("*.jpg")):
        data = path.read_bytes()
        picture = Image.open(io.BytesIO(data))
        picture.load()
        match = re.match(r"(\d+)_c(\d+)_", path.name)
        rows.append(
            {
                "image_id": path.relative_to(crops).as_posix(),
                "image": data,
                "path": str(path),
                "image_sha256": hashlib.sha256(data).hexdigest(),
                "width": picture.width,
                "height": picture.height,
                "person_id": int(match[1]) if match else None,
                "camera_id": int(match[2]) if match else None,
            }
        )
    out.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), out / "images.parquet", compression="zstd")
    return len(rows)


def run_job(crops: Path, out: Path) -> int:
    """The job ingest with its default settings; returns the images written."""
    from reid_ray.data.ingest.config import IngestJob
    from reid_ray.data.ingest.job import run_ingest

    pattern = r"(?P<person_id>\d+)_c(?P<camera_id>\d+)_"
    source = {"format": "folder", "path": str(crops), "pattern": pattern}
    manifest = run_ingest(IngestJob.model_validate({"source": source, "output": {"path": str(out)}}))
    return int(manifest["counts"]["written"])


WORKERS: dict[str, Callable[[Path, Path], int]] = {"plain loop": run_loop, "ingest": run_job}


def _worker(name: str, crops: Path, out: Path) -> int:
    """In the process of its own: measure one run, print it as JSON, remove what it wrote."""
    import os
    import shutil
    import time

    from reid_ray.measure import PeakMemory

    started, before = time.perf_counter(), os.times()
    with PeakMemory(interval_s=0.1) as peak:
        images = WORKERS[name](crops, out)
    seconds, after = time.perf_counter() - started, os.times()
    cpu = sum(after[:4]) - sum(before[:4])  # of this process and of the children that ended
    print(json.dumps({"images": images, "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak.bytes}))
    shutil.rmtree(out)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.exit(_worker(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
    sys.exit(main())
