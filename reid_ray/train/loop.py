"""The training loop. Runs on every worker alike and does not know what it trains: it is given Parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reid_ray.config.training import ScheduleConfig, TrainingJob
from reid_ray.train.checkpoint import Progress
from reid_ray.train.checkpoints import Checkpoints
from reid_ray.train.log import RunLog
from reid_ray.train.meter import Meter, peak_tflops
from reid_ray.train.optimizer import learning_rate
from reid_ray.train.parts import Parts
from reid_ray.train.recipe import BEST, Selection


def train(
    parts: Parts,
    *,
    folder: Path,
    selection: Selection | None,
    checkpoints: Checkpoints,
    log: RunLog,
    progress: Progress,
    steps: int,
    config: TrainingJob,
) -> Progress:
    """Train from progress.step to `steps`; validate, keep the best weights in folder/BEST and write checkpoints on the way."""
    if _stopped(progress, config.schedule):
        return progress
    schedule, each = config.schedule, parts.feed.plan.steps_per_epoch
    device = parts.engine.device
    meter = Meter(device=device, peak=peak_tflops(config.engine.precision, given=config.log.peak_tflops))
    batches = parts.feed.batches(progress.step, steps)
    for step in range(progress.step, steps):
        with meter.waiting():
            batch = next(batches)
        lr = learning_rate(step, steps=steps, config=config.optimizer)
        inputs = batch.inputs if parts.masking is None else parts.masking.before(batch.inputs, batch.text_A, step)
        with meter.forward(len(batch.person_A)):
            features = parts.engine.forward(inputs)
        loss = parts.objective(features, batch.person_A.to(device))
        norm = parts.engine.step(loss.total, lr=lr)
        if parts.masking is not None:
            parts.masking.after(inputs, batch.text_A, features)
        meter.add(loss, norm=norm, samples=len(batch.person_A))
        progress = replace(progress, step=step + 1)
        due = progress.step == steps or schedule.validates_after(progress.step, steps_per_epoch=each)
        if due:
            with meter.elsewhere():
                progress = _evaluate(parts, selection, folder=folder, log=log, progress=progress)
        stopped = _stopped(progress, schedule)
        last = stopped or progress.step == steps
        if last or progress.step % schedule.log_every == 0:
            log.numbers("train", step=progress.step, numbers={"lr": lr, **meter.line()})
        if stopped:
            log.event("early_stop", step=progress.step, best_step=progress.best_step, validations_without_better=progress.without_better)
        if last and selection is None:
            _keep(parts, folder / BEST, {"step": progress.step, "selected_on": None, "selection": "last step"})
        if last or progress.step % schedule.checkpoint_every == 0:
            with meter.elsewhere():
                checkpoints.save(parts, progress)
            log.event("checkpoint", step=progress.step)
        if stopped:
            break
    return progress


def _stopped(progress: Progress, schedule: ScheduleConfig) -> bool:
    return schedule.patience is not None and progress.without_better >= schedule.patience


def _evaluate(parts: Parts, selection: Selection | None, *, folder: Path, log: RunLog, progress: Progress) -> Progress:
    """Validate, keep the weights if none were better, and look at the other data sets."""
    parts.engine.train(False)
    if selection is not None and parts.validate is not None:
        progress = _select(parts, parts.validate, selection, folder=folder, log=log, progress=progress)
    for other in parts.transfer:
        log.numbers("transfer", step=progress.step, numbers=other.evaluate(), dataset=other.dataset, split=other.split)
    parts.engine.train(True)
    return progress


def _select(
    parts: Parts, validate: Callable[[], dict[str, float]], selection: Selection, *, folder: Path, log: RunLog, progress: Progress
) -> Progress:
    scores = validate()
    log.numbers("validation", step=progress.step, numbers=scores)
    score = scores[selection.number]
    if progress.best_score is not None and score <= progress.best_score:
        return replace(progress, without_better=progress.without_better + 1)
    chosen = {"selected_on": selection.split, "selection": f"best {selection.title}", selection.number: score}
    _keep(parts, folder / BEST, {"step": progress.step, **chosen})
    return replace(progress, best_step=progress.step, best_score=score, without_better=0)


def _keep(parts: Parts, path: Path, facts: dict[str, Any]) -> None:
    """Replace the model folder at `path` by the weights at hand."""
    state = parts.engine.full_state(frozen=parts.whole_model)
    if parts.engine.rank == 0:
        hidden, old = (path.with_name(f".{path.name}.{end}") for end in ("partial", "old"))
        shutil.rmtree(hidden, ignore_errors=True)
        parts.write(state, hidden, facts)
        if path.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        hidden.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    parts.engine.barrier()


def recover_best(folder: Path) -> None:
    """Put the best weights back if a worker died just when they were to be replaced; rank 0 calls it before training goes on."""
    old = folder / f".{BEST}.old"
    if old.is_dir() and not (folder / BEST).exists():
        old.rename(folder / BEST)
