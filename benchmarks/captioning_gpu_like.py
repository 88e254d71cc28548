"""How busy the caption job keeps an engine that is as fast as one on a GPU, and how many such engines a core can feed.

    python benchmarks/captioning_gpu_like.py --out benchmarks/results/captioning_gpu_like-DATE.json [--quick]

The engine is scripted (caption_engines/scripted_gpu.py): a step takes 20 ms whatever it works on, reads 8,192 tokens at most and works
on 128 requests at most; answers have 71 tokens on average, 25 more or less. It sleeps through its steps, so the machine's cores do what
they do beside a GPU: read, decode and shrink pictures of 1280 x 720 (JPEG files of some 200 kB), clean answers, commit rows. Shrinking to
`max_side` by Pillow's filter takes four times as long as decoding; --shrink fast is the captioner's other way, and with --max-side 1280
there is nothing to shrink, and the model's own processor does that.

One actor: `busy` is what an engine that is given all requests at once takes, over the seconds from the first request to the end of the
last step. Batches that are not full count against it as pauses do; `in_steps` knows the pauses alone. `pictures_a_core_s` divides the
pictures by the CPU seconds of all processes in that time (driver, Ray, readers, actor); over what an engine takes at best, these are
the engines that a core can feed. Then so many actors that they share the cores: all have to start, take part and finish, the first of them
waiting for the last; stated is what memory one takes (allocated pages, the most that it held), and what 64 would.
"""

from __future__ import annotations

import argparse
import functools
import io
import statistics
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.caption_engines.own_process import run_worker, serve_worker
from benchmarks.caption_engines.scripted_gpu import GpuLike, logged_requests
from benchmarks.caption_engines.step_log import read_logs, running_a_step
from benchmarks.harness import Report, run_benchmark

WIDTH, HEIGHT = 1280, 720
GPU = GpuLike()
LOGICAL_CPUS = 4
MOST_ACTORS = 64
START_S = 900  # of all actors


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--actors", type=int, default=16)
    parser.add_argument("--only", choices=["one", "many"])
    parser.add_argument("--max-side", type=int, default=1024, help="of the captioner; 1280 leaves the pictures as they are")
    parser.add_argument("--shrink", choices=["reference", "fast"], default="reference", help="of the captioner")
    parser.add_argument("--cpus", type=int, default=1, help="of the only actor (pool.num_cpus), as many of whose calls decode at once")
    parser.add_argument("--limit", type=float, default=1800, help="seconds that a run may take")
    own, rest = parser.parse_known_args()
    return run_benchmark(__doc__ or "", functools.partial(_run, own=own), rest)


def _run(report: Report, quick: bool, *, own: argparse.Namespace) -> None:
    pictures = own.pictures or (600 if quick else 3_000)
    with tempfile.TemporaryDirectory(prefix="caption_bench_") as scratch:
        write_photographs(Path(scratch) / "photographs", pictures)
        if own.only in (None, "one"):
            row = _measured(Path(scratch), "one", pictures, actors=1, own=own)
            report.row(what="one actor", pictures=pictures, cpus=own.cpus, max_side=own.max_side, shrink=own.shrink, **row)
            report.claim("share of the run that one engine is busy", row.get("busy", 0.0), ">=", 0.95)
        if own.only in (None, "many"):
            row = _measured(Path(scratch), "many", pictures, actors=own.actors, own=own)
            report.row(what=f"{own.actors} actors", pictures=pictures, max_side=own.max_side, shrink=own.shrink, **row)
            report.claim(f"actors of {own.actors} that started, took part and finished", row.get("took_part", 0), ">=", own.actors)


def _measured(scratch: Path, name: str, pictures: int, *, actors: int, own: argparse.Namespace) -> dict[str, Any]:
    """One run of the job, as columns of a row."""
    logs, out = scratch / f"{name}-logs", scratch / f"{name}-out"
    logs.mkdir()
    places = {"photographs": str(scratch / "photographs"), "logs": str(logs), "out": str(out)}
    result = run_worker(
        __file__, "job", **places, actors=actors, cpus=own.cpus, max_side=own.max_side, shrink=own.shrink, timeout_s=own.limit
    )
    engines = read_logs(logs)
    if "error" in result or not engines:
        return {"started": len(list(logs.glob("*.steps"))), "error": result.get("error", "no engine was asked anything")}
    first, end = min(log.first for log in engines), max(log.end for log in engines)
    seconds = end - first
    best = [GPU.best_s(logged_requests(log)) for log in engines]
    a_core_s = pictures / result["cpu_s"]
    return {
        "captions": result["captions"],
        "took_part": len(engines),
        "busy": round(statistics.fmean(best) / seconds, 3),
        "in_steps": round(sum(log.stepping_s for log in engines) / len(engines) / seconds, 3),
        "running_a_step": round(running_a_step(engines), 1),
        "pictures_per_s": round(pictures / seconds, 1),
        "pictures_a_core_s": round(a_core_s, 1),
        "actor_cpu_s": round(sum(log.steps[-1].cpu_s - log.steps[0].cpu_s for log in engines), 1),
        "all_cpu_s": round(result["cpu_s"], 1),
        "engines_a_core_feeds": round(a_core_s / (pictures / sum(best)), 2),
        "actor_mb": round(statistics.median(result["actors"]) / 1e6),
        "largest_actor_mb": round(max(result["actors"]) / 1e6),
        f"{MOST_ACTORS}_actors_gb": round(MOST_ACTORS * statistics.median(result["actors"]) / 1e9, 1),
        "peak_mb": round(result["peak"] / 1e6),
    }


def write_photographs(folder: Path, count: int) -> None:
    """JPEG files of 1280 x 720, each with bytes of its own: eight pictures with the energy of a photograph in every octave."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    jpegs = []
    for number in range(8):
        random = np.random.default_rng(number)
        picture = np.full((HEIGHT, WIDTH, 3), 128.0)
        for cells in (4, 16, 64, 256, WIDTH):
            noise = random.uniform(-90, 90, (cells * HEIGHT // WIDTH + 1, cells, 3)) * (4 / cells) ** 0.4
            octave = [Image.fromarray(noise[..., c].astype("float32")).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for c in range(3)]
            picture += np.stack([np.asarray(channel) for channel in octave], axis=-1)
        buffer = io.BytesIO()
        Image.fromarray(picture.clip(0, 255).astype("uint8")).save(buffer, "JPEG", quality=85)
        jpegs.append(buffer.getvalue())
    for number in range(count):
        jpeg, comment = jpegs[number % len(jpegs)], b"%08d" % number
        (folder / f"{number:08d}.jpg").write_bytes(jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:])


def _job(*, photographs: str, logs: str, out: str, actors: int, cpus: int, max_side: int, shrink: str) -> dict[str, Any]:
    """In a process of its own: CPU seconds from the first request to the last step, memory and captions."""
    from ray.data import DataContext

    from benchmarks.caption_engines.process_tree import Watched
    from benchmarks.caption_engines.scripted_gpu import ScriptedGpuToBe
    from reid_ray.caption.config import CaptionJob
    from reid_ray.caption.job import run_caption

    pool = {"batch_size": 32} | ({"num_cpus": cpus} if actors == 1 else {"replicas": actors, "num_cpus": 0.1})
    job = {
        "images": {"source": "folder", "path": photographs},
        "captioners": {"main": {"max_side": max_side, "shrink": shrink, "engine": {"max_num_seqs": GPU.max_num_seqs}, "pool": pool}},
        "rewriter": {"share": 0},
        "output": {"path": out},
        "ray": {"local_cpus": LOGICAL_CPUS},
    }
    DataContext.get_current().wait_for_min_actors_s = START_S  # else the first have done it all before the last are there
    with Watched(interval_s=1.0) as tree:
        manifest = run_caption(CaptionJob.model_validate(job), engine=ScriptedGpuToBe(Path(logs), GPU))
    engines = read_logs(Path(logs))
    return {
        "captions": manifest["counts"]["written"],
        "cpu_s": tree.cpu_s(min(log.first for log in engines), max(log.end for log in engines)),
        "actors": list(tree.most.values()),
        "peak": sum(held for _, held in tree.peak.values()),
    }


if __name__ == "__main__":
    sys.exit(0 if serve_worker({"job": _job}) else main())
