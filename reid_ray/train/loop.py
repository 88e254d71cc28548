"""The training loop. Runs on every worker alike and does not know what it trains: it is given Parts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from reid_ray.config.training import TrainingJob
from reid_ray.train import checkpoints
from reid_ray.train.checkpoints import Progress
from reid_ray.train.log import RunLog
from reid_ray.train.optimizer import learning_rate
from reid_ray.train.parts import Loss, Parts
from reid_ray.train.recipe import BEST, Selection


def train(
    parts: Parts, *, folder: Path, selection: Selection | None, log: RunLog, progress: Progress, steps: int, config: TrainingJob
) -> Progress:
    """Train from progress.step to `steps`; validate, keep the best weights in folder/BEST and write checkpoints on the way."""
    schedule = config.schedule
    means = _Means()
    batches = parts.feed.batches(progress.step, steps)
    for step in range(progress.step, steps):
        with means.waiting():
            batch = next(batches)
        lr = learning_rate(step, steps=steps, config=config.optimizer)
        inputs = batch.inputs if parts.masking is None else parts.masking.before(batch.inputs, batch.text_A, step)
        features = parts.engine.forward(inputs)
        loss = parts.objective(features, batch.person_A.to(parts.engine.device))
        norm = parts.engine.step(loss.total, lr=lr)
        if parts.masking is not None:
            parts.masking.after(inputs, batch.text_A, features)
        means.add(loss, norm=norm, samples=len(batch.person_A))
        progress = replace(progress, step=step + 1)
        last = progress.step == steps
        if last or progress.step % schedule.log_every == 0:
            log.numbers("train", step=progress.step, numbers={"lr": lr, **means.result()})
            means = _Means()
        if selection is not None and parts.validate is not None and (last or progress.step % schedule.validate_every == 0):
            progress = _select(parts, parts.validate, selection, folder=folder, log=log, progress=progress)
        if last and selection is None:
            _keep(parts, folder / BEST, {"step": progress.step, "selected_on": None, "selection": "last step"})
        if last or progress.step % schedule.checkpoint_every == 0:
            checkpoints.save(parts.engine, parts.masking, progress)
            log.event("checkpoint", step=progress.step)
    return progress


def _select(
    parts: Parts, validate: Callable[[], dict[str, float]], selection: Selection, *, folder: Path, log: RunLog, progress: Progress
) -> Progress:
    """Validate and keep the weights if none were better."""
    parts.engine.train(False)
    scores = validate()
    parts.engine.train(True)
    log.numbers("validation", step=progress.step, numbers=scores)
    score = scores[selection.number]
    if progress.best_score is not None and score <= progress.best_score:
        return progress
    chosen = {"selected_on": selection.split, "selection": f"best {selection.title}", selection.number: score}
    _keep(parts, folder / BEST, {"step": progress.step, **chosen})
    return replace(progress, best_step=progress.step, best_score=score)


def _keep(parts: Parts, path: Path, facts: dict[str, Any]) -> None:
    """Replace the model folder at `path` by the weights at hand."""
    state = parts.engine.full_state(frozen=parts.whole_model)
    if parts.engine.rank == 0:
        hidden = path.with_name(f".{path.name}.partial")
        shutil.rmtree(hidden, ignore_errors=True)
        parts.write(state, hidden, facts)
        shutil.rmtree(path, ignore_errors=True)
        hidden.rename(path)
    parts.engine.barrier()


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
