"""What noise-aware masking costs at the published size: 4 M captions of 77 tokens, a level a token kept from one epoch to the next.

    python benchmarks/noise_store.py --out benchmarks/results/noise_store-DATE.json [--quick]

One worker holds all levels here; of eight, each holds an eighth. Measured: memory of the store; what a step of 512 captions takes to look
up last epoch's levels, draw and mask, and to store this epoch's, beside a store of 40 k captions; seconds to save a checkpoint's levels and
to load them. The model's own part, the first layers of the text tower once more, is not in it. --quick repeats less.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Report, peak_extra_bytes, run_benchmark, time_turns
from reid_ray.train.masking.config import MaskingConfig
from reid_ray.train.masking.noise_aware import Vocabulary
from reid_ray.train.masking.noise_store import NoiseStore
from reid_ray.train.masking.step_masks import StepMasks

CAPTIONS, SMALL, TOKENS, BATCH = 4_000_000, 40_000, 77, 512
VOCABULARY = Vocabulary(49406, 49407, 49406, np.arange(49406))


class Steps:
    """Steps of one store, each of texts drawn at random, whose levels are all known."""

    def __init__(self, captions: int) -> None:
        self.store = NoiseStore(captions, TOKENS)
        self._masks = StepMasks(
            *(MaskingConfig(kind="nam"), VOCABULARY, self.store),
            seed=0,
            steps_per_epoch=captions // BATCH,
            device=torch.device("cpu"),
            targets=False,
        )
        self._draw, self._captions, self._step = np.random.default_rng(0), captions, 0
        ids = np.full((BATCH, TOKENS), VOCABULARY.end_id, np.int64)
        ids[:, 0] = VOCABULARY.start_id
        ids[:, 1:60] = self._draw.integers(0, 49406, (BATCH, 59))
        self._inputs = {"input_ids": torch.from_numpy(ids)}
        self._levels = torch.rand(BATCH, TOKENS)

    def step(self) -> None:
        """Look up, mask, store."""
        rows = torch.from_numpy(self._draw.integers(0, self._captions, BATCH))
        inputs = self._masks.before(self._inputs, rows, self._step)
        self._masks.after(inputs, rows, {"noise": self._levels})
        self._step += 1


def filled(captions: int) -> Steps:
    """Steps of a store whose memory has all been touched."""
    steps = Steps(captions)
    for start in range(0, captions, 100_000):
        rows = np.arange(start, min(start + 100_000, captions))
        steps.store.write(rows, np.full((len(rows), TOKENS), 100, np.uint8))
    return steps


def run(report: Report, quick: bool) -> None:
    held: list[Steps] = []
    grown = peak_extra_bytes(lambda: held.append(filled(CAPTIONS)))
    large, small = held[0], filled(SMALL)
    for steps in (large, small):
        steps.step()
    timed = time_turns({"large": large.step, "small": small.step}, repeats=10 if quick else 100)
    with tempfile.TemporaryDirectory() as folder:
        disk = time_turns(
            {"save": lambda: large.store.save(Path(folder)), "load": lambda: large.store.load(Path(folder))}, repeats=2 if quick else 5
        )
    report.row(what="step of 512", captions=CAPTIONS, mib=round(large.store.bytes / 2**20), **timed["large"].row())
    report.row(what="step of 512", captions=SMALL, mib=round(small.store.bytes / 2**20), **timed["small"].row())
    for name, timing in disk.items():
        report.row(what=name, captions=CAPTIONS, mib=round(large.store.bytes / 2**20), **timing.row())
    report.claim("memory by one byte a token", grown / (CAPTIONS * TOKENS), "<=", 1.1)
    report.claim("a step at 4 M captions by one at 40 k, least CPU time", timed["large"].best_cpu_s / timed["small"].best_cpu_s, "<=", 1.5)
    report.claim("CPU seconds of a step of 512 captions, the least", timed["large"].best_cpu_s, "<=", 0.05)


if __name__ == "__main__":
    sys.exit(run_benchmark(__doc__ or "", run))
