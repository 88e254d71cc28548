"""The training loop. Runs on every worker alike and does not know what it trains: an engine, an objective, a feed, and what to keep."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from reid_ray.config.train import OptimizerConfig, ScheduleConfig
from reid_ray.train import checkpoints
from reid_ray.train.checkpoints import Progress
from reid_ray.train.feed import Feed
from reid_ray.train.log import RunLog
from reid_ray.train.masker import Masker
from reid_ray.train.objective import Loss, Objective
from reid_ray.train.optimizer import learning_rate
from reid_ray.train.zero import ZeroEngine


@dataclass(frozen=True)
class Parts:
    """What a loop needs. `validate` gives numbers with "r1" among them, or is None; `keep` writes the weights as a model folder."""

    engine: ZeroEngine
    objective: Objective
    feed: Feed
    masker: Masker
    validate: Callable[[], dict[str, float]] | None
    keep: Callable[[Progress], None]
    log: RunLog


def train(parts: Parts, *, progress: Progress, steps: int, schedule: ScheduleConfig, optimizer: OptimizerConfig) -> Progress:
    """Train from progress.step to `steps`; validate, keep the best weights and write checkpoints on the way."""
    means = _Means()
    batches = parts.feed.batches(progress.step, steps)
    for step in range(progress.step, steps):
        with means.waiting():
            batch = next(batches)
        lr = learning_rate(step, steps=steps, config=optimizer)
        inputs = parts.masker.before(batch.inputs, batch.text_A, step)
        features = parts.engine.forward(inputs)
        loss = parts.objective(features, batch.person_A.to(parts.engine.device))
        norm = parts.engine.step(loss.total, lr=lr)
        parts.masker.after(inputs, batch.text_A, features)
        means.add(loss, norm=norm, samples=len(batch.person_A))
        progress = replace(progress, step=step + 1)
        last = progress.step == steps
        if last or progress.step % schedule.log_every == 0:
            parts.log.numbers("train", step=progress.step, numbers={"lr": lr, **means.result()})
            means = _Means()
        if last or (parts.validate is not None and progress.step % schedule.validate_every == 0):
            progress = _select(parts, progress)
        if last or progress.step % schedule.checkpoint_every == 0:
            checkpoints.save(parts.engine, parts.masker, progress)
            parts.log.event("checkpoint", step=progress.step)
    return progress


def _select(parts: Parts, progress: Progress) -> Progress:
    """Validate and keep the weights if none were better; without validation the weights at hand are kept."""
    if parts.validate is None:
        parts.keep(progress)
        return progress
    parts.engine.train(False)
    scores = parts.validate()
    parts.engine.train(True)
    parts.log.numbers("validation", step=progress.step, numbers=scores)
    if scores["r1"] > progress.best_r1:
        progress = replace(progress, best_step=progress.step, best_r1=scores["r1"])
        parts.keep(progress)
    return progress


class _Means:
    """Mean over steps and workers of what each step measured; workers speak to each other only for the result."""

    def __init__(self) -> None:
        self._rows: list[torch.Tensor] = []
        self._names: list[str] = []
        self._norm = self._wait = 0.0
        self._samples = 0
        self._since = time.perf_counter()

    def waiting(self) -> _Waiting:
        return _Waiting(self)

    def add_wait(self, seconds: float) -> None:
        self._wait += seconds

    def add(self, loss: Loss, *, norm: float, samples: int) -> None:
        named = {"loss": loss.total.detach(), **loss.raw, **{f"weighted_{name}": value for name, value in loss.weighted.items()}}
        self._names = list(named)
        self._rows.append(torch.stack(list(named.values())))
        self._norm += norm
        self._samples += samples

    def result(self) -> dict[str, float]:
        mean = torch.stack(self._rows).double().mean(dim=0)
        world = dist.get_world_size() if dist.is_initialized() else 1
        if world > 1:
            dist.all_reduce(mean)
            mean /= world
        seconds = time.perf_counter() - self._since
        numbers = dict(zip(self._names, mean.tolist(), strict=True))
        numbers["grad_norm"] = self._norm / len(self._rows)
        numbers["samples_per_second"] = self._samples * world / seconds
        numbers["data_wait_share"] = self._wait / seconds
        return numbers


class _Waiting:
    def __init__(self, means: _Means) -> None:
        self._means = means

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._means.add_wait(time.perf_counter() - self._started)
