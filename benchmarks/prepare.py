"""Prepare a training set of up to a million images with four captions each, and read random batches of it: seconds, memory, growth.

    python benchmarks/prepare.py --out benchmarks/results/prepare-DATE.json [--quick]

The tables are synthetic: distinct ids and captions, pictures of 32 x 16 pixels out of a thousand, so that the cost of rows shows and not
that of decoding. Each size is prepared in a process of its own, `repeats` times, and its peak memory is that process's. The slope is that
of log seconds over log images by least squares, with the upper end of its 95 % interval (Student's t); 4.2 M images, LUPerson's number,
are extrapolated by it. A batch is 512 random rows: captions, rewrites and encoded pictures, not decoded.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy import stats

from benchmarks.harness import Report, run_benchmark
from reid_ray.config.base import load_config
from reid_ray.data.images import encode_jpeg
from reid_ray.records import CAPTIONS, IMAGES, conform
from reid_ray.storage import Counts, TableWriter
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.pictures import PictureStore
from reid_ray.train.feed.prepared import PICTURES, SAMPLES, RowFile

ROOT = Path(__file__).resolve().parents[1]
_CAPTIONS, _PICTURES, _BATCH, _PIECE = 4, 1_000, 512, 50_000
_LUPERSON = 4_200_000
_WORDS = [
    "man",
    "woman",
    "red",
    "coat",
    "black",
    "trousers",
    "with",
    "white",
    "shoes",
    "blue",
    "bag",
    "short",
    "dark",
    "hair",
    "walks",
    "left",
]


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(_prepare(Path(sys.argv[2]), Path(sys.argv[3]))))
        return 0
    return run_benchmark(__doc__ or "", _run)


def _run(report: Report, quick: bool) -> None:
    sizes, repeats = ([2_000, 6_000, 20_000], 2) if quick else ([100_000, 300_000, 1_000_000], 2)
    points: list[tuple[int, float]] = []
    rates, peaks = {}, {}
    for images in sizes:
        with tempfile.TemporaryDirectory(prefix="prepare_bench_") as scratch:
            tables = Path(scratch) / "tables"
            write_tables(tables, images)
            found = []
            for number in range(repeats):
                out = Path(scratch) / f"out{number}"
                out.mkdir()
                found.append(_in_own_process(tables, out))
                assert found[-1]["samples"] == images * _CAPTIONS, found[-1]
            points += [(images, each["seconds"]) for each in found]
            rates[images], peaks[images] = max(each["batches_per_s"] for each in found), max(each["peak_bytes"] for each in found)
            report.row(
                images=images,
                captions=images * _CAPTIONS,
                repeats=repeats,
                seconds=[round(each["seconds"], 1) for each in found],
                cpu_seconds=[round(each["cpu_seconds"], 1) for each in found],
                peak_rss_mb=round(peaks[images] / 1e6),
                batches_per_s=[round(each["batches_per_s"], 1) for each in found],
            )
    slope, upper, at_luperson = growth(points)
    report.row(what="4.2 M images x 4, extrapolated", hours=round(at_luperson / 3600, 2), slope=round(slope, 3))
    report.claim("slope of log seconds over log images, upper end of its 95 % interval", round(upper, 3), "<=", 1.1)
    if quick:  # too small for memory and caches to tell anything
        return
    report.claim("random batches a second, largest set over smallest", round(rates[sizes[-1]] / rates[sizes[0]], 2), ">=", 0.8)
    grown = (peaks[sizes[-1]] - peaks[sizes[0]]) / (sizes[-1] - sizes[0]) / _CAPTIONS
    report.claim("bytes of memory a caption more takes", round(grown), "<=", 250)


def growth(points: list[tuple[int, float]]) -> tuple[float, float, float]:
    """(slope, upper end of its 95 % interval, seconds at LUPerson's size) of log seconds over log images."""
    size, seconds = (np.log([point[axis] for point in points]) for axis in (0, 1))
    fit = stats.linregress(size, seconds)
    margin = stats.t.ppf(0.975, len(points) - 2) * fit.stderr
    return float(fit.slope), float(fit.slope + margin), math.exp(fit.intercept + fit.slope * math.log(_LUPERSON))


def write_tables(folder: Path, images: int) -> None:
    """IMAGES without splits and CAPTIONS with a rewrite of every fifth image's first caption."""
    draw = np.random.default_rng(0)
    pictures = [encode_jpeg(Image.fromarray(draw.integers(0, 256, (32, 16, 3), np.uint8))) for _ in range(_PICTURES)]
    with TableWriter(folder / "images", IMAGES) as image_table, TableWriter(folder / "captions", CAPTIONS) as caption_table:
        for start in range(0, images, _PIECE):
            numbers = range(start, min(start + _PIECE, images))
            ids = [f"{number % 90:02d}_{number % 7:02d}_{number % 1000:04d}_{number:08d}" for number in numbers]
            image_table.append(_table(IMAGES, image_id=ids, image=[pictures[number % _PICTURES] for number in numbers]))
            texts = [" ".join(_WORDS[index] for index in row) for row in draw.integers(0, len(_WORDS), (len(ids) * _CAPTIONS, 22))]
            names = [f"{name}#{number}" for name in ids for number in range(_CAPTIONS)]
            owners, kinds = [name for name in ids for _ in range(_CAPTIONS)], ["static", "dynamic"] * (len(names) // 2)
            own = [None] * len(names)
            parents = names[:: 5 * _CAPTIONS]
            caption_table.append(
                _table(
                    CAPTIONS,
                    caption_id=[*names, *(f"{name}r" for name in parents)],
                    image_id=[*owners, *owners[:: 5 * _CAPTIONS]],
                    parent_id=[*own, *parents],
                    kind=[*kinds, *["rewrite"] * len(parents)],
                    text=[*texts, *(f"rewritten: {text}" for text in texts[:: 5 * _CAPTIONS])],
                    status=["ok"] * (len(names) + len(parents)),
                )
            )


def _table(schema: pa.Schema, **columns: list[Any]) -> pa.Table:
    return conform(pa.table(columns), schema, origin="benchmark")


def _in_own_process(tables: Path, out: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(tables), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _prepare(tables: Path, out: Path) -> dict[str, Any]:
    """One preparation and some hundred random batches of it."""
    job = load_config(
        TrainJob,
        None,
        [
            *[f"images.path={tables}/images", "images.train_split=null", "images.val_split=null"],
            *[f"captions.paths=[{tables}/captions]", f"output.path={out}/never", "workers.count=1"],
        ],
    )
    wall, cpu = time.perf_counter(), time.process_time()
    facts = prepare_pairs(job, out, Counts())
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    peak = _peak_bytes()
    samples, pictures = RowFile(out / SAMPLES), PictureStore(out / PICTURES)
    draw = np.random.default_rng(1)
    batches = [draw.integers(0, len(samples), _BATCH) for _ in range(120)]
    for rows in batches[:20]:
        _read(samples, pictures, rows)
    wall = time.perf_counter()
    for rows in batches[20:]:
        _read(samples, pictures, rows)
    rate = 100 / (time.perf_counter() - wall)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak, "samples": facts["samples"], "batches_per_s": rate}


def _read(samples: RowFile, pictures: PictureStore, rows: np.ndarray) -> None:
    found = samples.take(rows)
    assert len(found["text"].to_pylist()) == len([pictures[row] for row in found["picture"].to_pylist()]) == len(rows)


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) << 10


if __name__ == "__main__":
    sys.exit(main())
