"""Prepare a training set of up to a million images with four captions each, and read random batches of it: seconds, memory, growth.

    pip install -e '.[bench]'
    python benchmarks/prepare.py --out benchmarks/results/prepare-DATE.json [--quick] [--only sizes|loaders|random]

The tables are synthetic (synthetic_rows.py): distinct ids and captions, pictures of 128 x 64 pixels, some kilobytes each. Each size is
prepared in a process of its own; its peak memory is that process's own, without the pages of mapped files. The smallest is prepared alone
first, then beside each of the larger ones, which tells the slope of log seconds over log images (preparing_growth.py); 4.2 M images,
LUPerson's number, are extrapolated by it.
Whether a random batch's price grows with the set is told by turns of the smallest and of the largest set (random_rows.py).
`--sets FOLDER` keeps the prepared sets there, or takes those that it finds.

Of the sets of 0.1 and 0.3 M, training's batches of 64 pictures of 384 x 128 and their texts are then read by the feed and by torch's
DataLoader over WebDataset and over Hugging Face datasets (data_loaders.py), turn by turn in one process: the first turn with the files'
pages dropped (cold), then as they are. CPU milliseconds are those of the process and its workers; other programs on the machine
disturb them less than the rates.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, drop_pages, in_own_process, peak_own_bytes, run_benchmark
from benchmarks.preparing_growth import Prepared, mean_seconds, prepare_again, side_by_side, slope_of
from benchmarks.random_rows import compare_random, cpu_seconds
from benchmarks.synthetic_rows import CAPTIONS_EACH, iter_rows, write_tables
from reid_ray.config.base import load_config
from reid_ray.config.common import RayConfig
from reid_ray.runtime import ray_session
from reid_ray.storage import Counts
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.prepared import SAMPLES, RowFile

_BATCH, _THREADS = 64, 2  # of the loaders
_AHEAD, _STEPS = 8, 30  # batches of a turn: those prepared before it began, and those timed
_SHAPE = {"height": 128, "width": 64}
_TRAINED = {"height": 384, "width": 128}  # as CLIP's recipes resize them
_LUPERSON = 4_200_000


def main() -> int:
    if sys.argv[1:2] == ["--prepare"]:
        print(json.dumps(_prepare(Path(sys.argv[2]), Path(sys.argv[3]))))
        return 0
    if sys.argv[1:2] == ["--again"]:
        tables, scratch, over = (Path(word) for word in sys.argv[2:5])
        print(json.dumps({"found": prepare_again(partial(_prepare, tables), scratch, over)}))
        return 0
    if sys.argv[1:2] == ["--tasks"]:
        with ray_session(RayConfig(address="local", local_cpus=2)):
            print(json.dumps(_prepare(Path(sys.argv[2]), Path(sys.argv[3]))))
        return 0
    if sys.argv[1:2] == ["--compare"]:
        print(json.dumps(_compare(Path(sys.argv[2]), Path(sys.argv[3]), images=int(sys.argv[4]), turns=int(sys.argv[5]))))
        return 0
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", choices=["sizes", "loaders", "random"])
    parser.add_argument("--sets", type=Path, metavar="FOLDER", help="of --only random: where prepared sets are kept")
    own, rest = parser.parse_known_args()
    if own.only == "random":
        return run_benchmark(__doc__ or "", partial(_random_reads, kept=own.sets), rest)
    return run_benchmark(__doc__ or "", partial(_run, only=own.only), rest)


def _random_reads(report: Report, quick: bool, *, kept: Path | None) -> None:
    """Rows and the claim of random batches of a small and a large set, turn by turn."""
    sizes = (2_000, 20_000) if quick else (100_000, 1_000_000)
    with tempfile.TemporaryDirectory(prefix="prepare_bench_") as scratch:
        sets = {images: _kept(kept or Path(scratch), images) for images in sizes}
        jobs = {images: bench_job((kept or Path(scratch)) / f"{images}.tables", out) for images, out in sets.items()}
        compare_random(report, sets, jobs, turns=3 if quick else 15, size=(_TRAINED["height"], _TRAINED["width"]))


def _kept(folder: Path, images: int) -> Path:
    """A prepared set of so many images in `folder`, made if it is not there."""
    out = folder / f"{images}"
    if not (folder / f"{images}.done").exists():
        write_tables(folder / f"{images}.tables", images, **_SHAPE)
        _prepared("--prepare", folder / f"{images}.tables", out)
        (folder / f"{images}.done").touch()
    return out


def _run(report: Report, quick: bool, *, only: str | None) -> None:
    compared = () if only == "sizes" or not _can_compare(quick) else (2_000,) if quick else (100_000, 300_000)
    if only == "loaders":
        for images in compared:
            with tempfile.TemporaryDirectory(prefix="prepare_bench_") as scratch:
                write_tables(Path(scratch) / "tables", images, **_SHAPE)
                _prepared("--prepare", Path(scratch) / "tables", Path(scratch) / "out0")
                _compared(report, Path(scratch) / "tables", Path(scratch) / "out0", images=images, turns=3 if quick else 7)
        return
    small, larger = (2_000, {6_000: 2, 20_000: 2}) if quick else (100_000, {300_000: 4, 1_000_000: 2})
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="prepare_bench_") as scratch:
        tables = Path(scratch) / "tables"
        write_tables(tables, small, **_SHAPE)
        alone = [_prepared("--prepare", tables, Path(scratch) / f"out{number}") for number in range(2 if quick else 3)]
        peaks = {small: _size_row(report, small, alone)}
        tasks = _prepared("--tasks", tables, Path(scratch) / "tasks")
        same = _digest(Path(scratch) / "tasks") == _digest(Path(scratch) / "out0")
        report.row(images=small, what="by Ray tasks on two CPUs", seconds=[round(tasks["seconds"], 1)], same_bytes=same)
        if small in compared:
            _compared(report, tables, Path(scratch) / "out0", images=small, turns=3 if quick else 7)
        for images, times in larger.items():
            peaks[images] = _beside(report, pairs, tables, small=small, images=images, times=times, compare=images in compared)
    slope, upper = slope_of(pairs)
    hours = mean_seconds(alone) * (_LUPERSON / small) ** slope / 3600
    report.row(what="4.2 M images x 4, extrapolated", hours=round(hours, 2), slope=round(slope, 3))
    report.claim("slope of log seconds over log images, upper end of its 95 % interval", round(upper, 3), "<=", 1.1)
    if quick:  # too small for memory and caches to tell anything
        return
    grown = (peaks[max(peaks)] - peaks[min(peaks)]) / (max(peaks) - min(peaks)) / CAPTIONS_EACH
    report.claim("bytes of memory a caption more takes", round(grown), "<=", 250)


def _size_row(report: Report, images: int, found: list[Prepared], **more: Any) -> int:
    """A row on preparations of one size; the most memory that one of them had, in bytes."""
    peak = max(each["peak_bytes"] for each in found)
    numbers = {name: [round(each[name], 1) for each in found] for name in ("seconds", "cpu_seconds")}
    report.row(images=images, captions=images * CAPTIONS_EACH, repeats=len(found), **numbers, peak_mb=round(peak / 1e6), **more)
    return int(peak)


def _beside(report: Report, pairs: list[tuple[float, float]], tables: Path, *, small: int, images: int, times: int, compare: bool) -> int:
    """Prepare a larger set `times` times, each time beside the smallest in `tables`; adds to `pairs`, returns the most memory in bytes."""
    with tempfile.TemporaryDirectory(prefix="prepare_bench_") as scratch:
        large = Path(scratch) / "tables"
        write_tables(large, images, **_SHAPE)
        found: list[Prepared] = []
        for number in range(times):
            beside, took = side_by_side(__file__, tables, partial(_prepared, "--prepare", large, Path(scratch) / f"out{number}"))
            pairs.append((images / small, took["seconds"] / mean_seconds(beside)))
            report.row(images=small, beside=images, repeats=len(beside), seconds=[round(each["seconds"], 1) for each in beside])
            found.append(took)
        peak = _size_row(report, images, found, slopes=[round(math.log(b) / math.log(a), 3) for a, b in pairs[-times:]])
        if compare:
            _compared(report, large, Path(scratch) / "out0", images=images, turns=7)
    return peak


def _prepared(how: str, tables: Path, out: Path) -> Prepared:
    out.mkdir()
    found = in_own_process(__file__, how, str(tables), str(out))
    assert found["samples"] == found["expected"], found
    return found


def _compared(report: Report, tables: Path, out: Path, *, images: int, turns: int) -> None:
    """Rows and claims of the three loaders over one set."""
    from scipy import stats

    found = in_own_process(__file__, "--compare", str(tables), str(out), str(images), str(turns))
    for name, each in found.items():
        report.row(images=images, loader=name, **each)
    for name in ("WebDataset", "Hugging Face datasets"):
        ratios = np.array(found["feed"]["batches_per_s"]) / np.array(found[name]["batches_per_s"])
        cpu = statistics.median(found[name]["cpu_ms"]) / statistics.median(found["feed"]["cpu_ms"])
        margin = float(stats.t.ppf(0.975, turns - 1)) * float(np.log(ratios).std(ddof=1)) / math.sqrt(turns)
        mean = float(np.log(ratios).mean())
        interval = [round(math.exp(mean + side * margin), 3) for side in (-1, 0, 1)]
        report.row(images=images, what=f"feed over {name}", ratios_95=interval, cpu_ratio=round(cpu, 3))
        report.claim(f"batches a second of the feed over {name}, {images:,} images, median", float(np.median(ratios)), ">=", 1.0)


def _can_compare(quick: bool) -> bool:
    missing = [name for name in ("webdataset", "datasets") if importlib.util.find_spec(name) is None]
    if missing and not quick:
        raise SystemExit(f"{' and '.join(missing)} must be installed: pip install {' '.join(missing)}")
    return not missing


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def bench_job(tables: Path, out: Path, *changes: str) -> TrainJob:
    """The train job that prepares and reads the tables."""
    return load_config(
        TrainJob,
        None,
        [
            *[f"images.path={tables}/images", "images.train_split=null", "images.val_split=null"],
            *[f"captions.paths=[{tables}/captions]", f"output.path={out}/never", "workers.count=1"],
            *[f"batches.size={_BATCH}", f"batches.threads={_THREADS}", *changes],
        ],
    )


def _prepare(tables: Path, out: Path) -> dict[str, Any]:
    """One preparation."""
    job = bench_job(tables, out)
    wall, cpu = time.perf_counter(), time.process_time()
    counts = Counts()
    with peak_own_bytes() as peak:
        facts = prepare_pairs(job, out, counts)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_bytes": peak[0],
        "samples": facts["samples"],
        "expected": counts.read - facts["rewrites"],
    }


def _compare(tables: Path, prepared: Path, *, images: int, turns: int) -> dict[str, Any]:
    """Batches a second and CPU milliseconds a batch of each loader, turn by turn; the first, cold turn apart."""
    from benchmarks import data_loaders as rivals

    job = bench_job(tables, prepared)
    others = tables.parent
    shards, hf_file = rivals.write_rivals(others, iter_rows(images, **_SHAPE))
    work = rivals.Work(job.batches, RowFile(prepared / SAMPLES).take(np.arange(1000))["text"].to_pylist(), **_TRAINED)
    drop_pages(others)
    loaders = {
        "feed": rivals.feed(prepared, job, work),
        "WebDataset": rivals.webdataset(shards, job, work),
        "Hugging Face datasets": rivals.hf_datasets(hf_file, job, work),
    }
    running = {name: make() for name, make in loaders.items()}
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    cpu: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(turns + 1):
        for name, batches in running.items():
            for _ in range(_AHEAD):
                next(batches)
            clock, busy = time.perf_counter(), cpu_seconds()
            for _ in range(_STEPS):
                next(batches)
            rates[name].append(_STEPS / (time.perf_counter() - clock))
            cpu[name].append((cpu_seconds() - busy) / _STEPS * 1e3)
    return {
        name: {
            "batches_per_s": [round(rate, 2) for rate in rates[name][1:]],
            "cpu_ms": [round(each, 2) for each in cpu[name][1:]],
            "cold_batches_per_s": round(rates[name][0], 2),
        }
        for name in loaders
    }


if __name__ == "__main__":
    sys.exit(main())
