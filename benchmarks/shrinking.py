"""What it costs to decode and shrink a photograph for a captioner, by Pillow's filter and the fast way, and how far their pixels are apart.

    python benchmarks/shrinking.py --out benchmarks/results/shrinking-DATE.json [--quick]

JPEG files of 1280 x 720 with the energy of a photograph in every octave (captioning_gpu_like.py), one thread. A time is CPU time of that
thread, the least of so many turns, so that other programs on the machine weigh little; a difference is of grey levels, 0 to 255.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.captioning_gpu_like import write_photographs
from benchmarks.harness import Report, run_benchmark
from reid_ray.caption.fast_shrinking import decode_at_most
from reid_ray.data.images import decode_image

SIDES = (1024, 640, 448, 336)


def _run(report: Report, quick: bool) -> None:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="shrinking_") as scratch:
        write_photographs(Path(scratch) / "photographs", 4)
        photographs = [file.read_bytes() for file in sorted((Path(scratch) / "photographs").iterdir())]
    turns = 3 if quick else 15
    decoding_ms = _least_ms(lambda: [decode_image(data) for data in photographs], turns) / len(photographs)
    report.row(what="decoding alone", ms=round(decoding_ms, 2))
    for side in SIDES:
        pillow_ms = _least_ms(functools.partial(_all, _by_pillow, photographs, side), turns) / len(photographs)
        fast_ms = _least_ms(functools.partial(_all, _fast, photographs, side), turns) / len(photographs)
        apart = [np.abs(np.asarray(_fast(data, side), float) - np.asarray(_by_pillow(data, side), float)) for data in photographs]
        report.row(
            what=f"longest side {side}",
            pillow_ms=round(pillow_ms, 2),
            fast_ms=round(fast_ms, 2),
            pictures_a_core_s=round(1000 / fast_ms),
            mean_difference=round(float(np.mean(apart)), 3),
            largest_difference=float(np.max(apart)),
        )
        report.claim(f"longest side {side}: the fast way's time over Pillow's", round(fast_ms / pillow_ms, 3), "<=", 0.6)
        report.claim(f"longest side {side}: grey levels between them, on average", round(float(np.mean(apart)), 3), "<=", 1.5)


def _least_ms(work: Callable[[], Any], turns: int) -> float:
    """CPU time of this thread."""
    work()
    least = float("inf")
    for _ in range(turns):
        begun = time.thread_time()
        work()
        least = min(least, time.thread_time() - begun)
    return 1000 * least


def _all(shrink: Callable[[bytes, int], Any], photographs: list[bytes], side: int) -> None:
    for data in photographs:
        shrink(data, side)


def _by_pillow(data: bytes, side: int) -> Any:
    picture = decode_image(data)
    picture.thumbnail((side, side))
    return picture


def _fast(data: bytes, side: int) -> Any:
    return decode_at_most(data, max_side=side, max_pixels=10_000_000, unread=None)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", _run))
