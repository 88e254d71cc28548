"""The caption job's memory from few images to many.

    python benchmarks/captioning_memory.py --out benchmarks/results/captioning_memory-DATE.json [--quick]

Peak memory is what the job's processes have allocated (caption_engines/process_tree.py says what counts) at the moment when all of
them together held most, four times a second. Few images and many run one after the other in one Ray, each with an engine of its own,
after a job over 4,000 that only warms Ray up: its workers import what the job needs when they get their first task, the last of them
late, and its statistics actor fills buffers. Otherwise the short run would end before Ray has the size that it keeps. Ray keeps idle
workers in number up to its logical CPUs, so a row says how many processes there were; 4 logical CPUs here. With --quick the many are too
few for Ray to have its size.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.caption_engines.own_process import run_worker, serve_worker
from benchmarks.captioning import LOGICAL_CPUS, MODEL, write_people
from benchmarks.harness import Report, run_benchmark

WARM_UP_IMAGES = 4_000


def _run(report: Report, quick: bool) -> None:
    few, many = (256, 1_280) if quick else (1_000, 20_000)
    with tempfile.TemporaryDirectory(prefix="caption_bench_") as scratch:
        table = Path(scratch) / "images.parquet"
        write_people(table, max(many, WARM_UP_IMAGES))
        result = run_worker(__file__, "memory", table=str(table), sizes=[few, many], folder=scratch)
    if "error" in result:
        raise RuntimeError(result["error"])
    peaks = []
    for images, parts in zip((few, many), result["peaks"], strict=True):
        peaks.append(sum(held for _, held in parts.values()))
        columns = {f"{part}_mb": round(held / 1e6) for part, (_, held) in parts.items()}
        processes = sum(count for count, _ in parts.values())
        report.row(what="caption job", images=images, peak_mb=round(peaks[-1] / 1e6), **columns, processes=processes)
    report.claim(f"peak memory at {many} images against {few}", round(peaks[1] / peaks[0], 3), "<=", 1.1)


def _memory(*, table: str, sizes: list[int], folder: str) -> dict[str, Any]:
    """The peaks of the job over so many images, after a first run that counts for nothing."""
    from benchmarks.caption_engines.process_tree import peaks_of
    from reid_ray.config.common import RayConfig
    from reid_ray.runtime import ray_session

    with ray_session(RayConfig(address="local", local_cpus=LOGICAL_CPUS)):
        _caption(table, WARM_UP_IMAGES, Path(folder) / "warm-up")
        return {"peaks": peaks_of([functools.partial(_caption, table, images, Path(folder) / str(images)) for images in sizes])}


def _caption(table: str, images: int, out: Path) -> None:
    from reid_ray.caption.config import CaptionJob
    from reid_ray.caption.job import run_caption

    job = {
        "images": {"source": "parquet", "path": table, "limit": images},
        "captioners": {"main": {"model": MODEL}},
        "rewriter": {"share": 0},
        "output": {"path": str(out)},
    }
    manifest = run_caption(CaptionJob.model_validate(job))
    assert manifest["counts"]["read"] == images, manifest["counts"]


if __name__ == "__main__":
    sys.exit(0 if serve_worker({"memory": _memory}) else run_benchmark(__doc__ or "", _run))
