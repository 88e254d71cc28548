"""Does a random batch of a prepared set cost the same in a large set as in a small one? For prepare.py.

Two kinds of batches. Encoded: 512 rows, captions, rewrites and encoded pictures, not decoded; in two readers that have gone through all
rows once, as a training's have after its first epoch, and in readers opened for the turn, whose every new page the system maps on the way
(of a small set few are left to map after some batches), then in readers opened anew with the pages dropped (cold: each row waits for the
disk). Trained: the feed's own batches as a training draws them, decoded, augmented and tokenised, made by its threads.

All files are in the system's memory but for the cold ones. The sets take turns, each turn's ratio is of that turn, and its interval is the
95 % one of the mean logarithm (Student's t). CPU milliseconds a batch are the process's own; other programs disturb them less than rates.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import Report, drop_pages
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.pictures import PictureStore
from reid_ray.train.feed.prepared import PICTURES, SAMPLES, RowFile

_TAKEN = 512  # rows of an encoded batch
_ENCODED, _COLD = 40, 4  # batches of a turn
_AHEAD, _TRAINED = 4, 16  # trained batches of a turn: those prepared before it began, and those timed


@dataclass
class _Turns:
    """What each turn of one set and one kind of batch took."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def time(self, make: Callable[[], object], batches: int) -> None:
        """A turn: `make` gives one batch."""
        began, busy = time.perf_counter(), cpu_seconds()
        for _ in range(batches):
            make()
        self.rates.append(batches / (time.perf_counter() - began))
        self.cpu_ms.append((cpu_seconds() - busy) / batches * 1e3)


def compare_random(report: Report, sets: Mapping[int, Path], jobs: Mapping[int, TrainJob], *, turns: int, size: tuple[int, int]) -> None:
    """Rows and claims of the smallest and the largest of `sets`, turn by turn.

    Args:
        report: takes them.
        sets: the prepared folders by their number of images.
        jobs: the train job of each.
        turns: of each kind but the cold one, which has three.
        size: height and width of a trained picture.
    """
    kinds = {
        "encoded, after a first epoch": _after_an_epoch(sets, turns),
        "encoded, just opened": _just_opened(sets, turns),
        "trained": _trained(sets, jobs, turns, size),
    }
    cold = _cold(sets)
    for images, folder in sets.items():
        for kind, found in {**kinds, "encoded, cold": cold}.items():
            report.row(
                images=images,
                what=f"random batches, {kind}",
                mb=round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6),
                batches_per_s=[round(rate, 2) for rate in found[images].rates],
                cpu_ms=[round(each, 2) for each in found[images].cpu_ms],
            )
    small, large = min(sets), max(sets)
    for kind, found in kinds.items():
        ratios = ratio_95(found[large].rates, found[small].rates)
        cpu = ratio_95(found[small].cpu_ms, found[large].cpu_ms)
        report.row(what=f"{large:,} over {small:,} images, {kind}", ratios_95=ratios, cpu_ratios_95=cpu)
        if turns > 3:
            report.claim(f"random batches a second, largest set over smallest, {kind}", ratios[1], ">=", 0.8)


def ratio_95(above: list[float], below: list[float]) -> list[float]:
    """[lower end, geometric mean, upper end] of the ratios of each turn, 95 %."""
    from scipy import stats

    log_ratios = np.log(np.array(above) / np.array(below))
    half = float(stats.t.ppf(0.975, len(log_ratios) - 1) * stats.sem(log_ratios))
    return [round(math.exp(float(log_ratios.mean()) + way * half), 3) for way in (-1, 0, 1)]


def cpu_seconds() -> float:
    """Of this process and its children alive."""
    import psutil

    here, used = psutil.Process(), time.process_time()
    for each in here.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended between the listing and the look
            used += sum(each.cpu_times()[:2])
    return used


class _Rows:
    """A prepared set, opened."""

    def __init__(self, folder: Path) -> None:
        self._samples, self._pictures = RowFile(folder / SAMPLES), PictureStore(folder / PICTURES)

    def walk(self) -> None:
        """Read every row once, in order."""
        for start in range(0, len(self._samples), 8 * _TAKEN):
            self._read(np.arange(start, min(start + 8 * _TAKEN, len(self._samples))))

    def time(self, turns: _Turns, *, seed: int, batches: int) -> None:
        """A turn of random batches."""
        draw = np.random.default_rng(seed)
        chosen = iter([draw.integers(0, len(self._samples), _TAKEN) for _ in range(batches)])
        turns.time(lambda: self._read(next(chosen)), batches)

    def _read(self, rows: np.ndarray) -> None:
        found = self._samples.take(rows)
        texts, pictures = found["text"].to_pylist(), [self._pictures[row] for row in found["picture"].to_pylist()]
        assert len(texts) == len(found["rewrites"].to_pylist()) == len(pictures) == len(rows)


def _into_memory(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.read_bytes()


def _after_an_epoch(sets: Mapping[int, Path], turns: int) -> dict[int, _Turns]:
    for folder in sets.values():
        _into_memory(folder)
    readers, found = {images: _Rows(folder) for images, folder in sets.items()}, {images: _Turns() for images in sets}
    for reader in readers.values():
        reader.walk()
    for turn, images in itertools.product(range(turns), sets):
        readers[images].time(found[images], seed=turn, batches=_ENCODED)
    return found


def _just_opened(sets: Mapping[int, Path], turns: int) -> dict[int, _Turns]:
    found = {images: _Turns() for images in sets}
    for turn, (images, folder) in itertools.product(range(turns), sets.items()):
        _Rows(folder).time(found[images], seed=turn, batches=_ENCODED)
    return found


def _cold(sets: Mapping[int, Path]) -> dict[int, _Turns]:
    found = {images: _Turns() for images in sets}
    for turn, (images, folder) in itertools.product(range(3), sets.items()):
        drop_pages(folder)
        _Rows(folder).time(found[images], seed=100 + turn, batches=_COLD)
    return found


def _trained(sets: Mapping[int, Path], jobs: Mapping[int, TrainJob], turns: int, size: tuple[int, int]) -> dict[int, _Turns]:
    from benchmarks import data_loaders

    found, running = {images: _Turns() for images in sets}, {}
    texts = RowFile(sets[min(sets)] / SAMPLES).take(np.arange(1000))["text"].to_pylist()
    for images, folder in sets.items():
        work = data_loaders.Work(jobs[images].batches, texts, height=size[0], width=size[1])
        running[images] = data_loaders.feed(folder, jobs[images], work)()
    for _turn, (images, batches) in itertools.product(range(turns), running.items()):
        for _ in range(_AHEAD):
            next(batches)
        found[images].time(partial(next, batches), _TRAINED)
    return found
