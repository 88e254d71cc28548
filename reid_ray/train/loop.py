"""The training loop: forward, loss, backward, step; validation, best weights, checkpoints, early stopping.

Runs on every worker alike and does not know what it trains: it is given Parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reid_ray.errors import TrainingError
from reid_ray.train.checkpoint.best import drop_previous_best, replace_best
from reid_ray.train.checkpoint.checkpoint_place import Checkpoints
from reid_ray.train.checkpoint.contents import Progress
from reid_ray.train.collectives import broadcast
from reid_ray.train.config import ScheduleConfig, TrainingJob
from reid_ray.train.finite import not_finite, refuse_not_finite_weights
from reid_ray.train.log.meter import Meter, peak_tflops
from reid_ray.train.log.run_log import NOT_FINITE, RunLog
from reid_ray.train.optimizer import learning_rate
from reid_ray.train.parts import Loss, Parts, Tensors, TrainBatch
from reid_ray.train.recipe import Selection


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
    """Train from progress.step to `steps`; validate, keep the best weights in folder/BEST and write checkpoints on the way.

    Raises:
        TrainingError: on every worker alike: a loss, a gradient or a weight is NaN or infinite, or no validation gave a number to
            choose by. The newest checkpoint stays.
    """
    if not _stopped(progress, config.schedule):
        progress = _steps(
            parts, folder=folder, selection=selection, checkpoints=checkpoints, log=log, progress=progress, steps=steps, config=config
        )
    if selection is not None and progress.best_score is None:
        raise TrainingError(
            f"none of the validations gave a number for {selection.title} on {selection.split}, so there are no weights to keep; look at "
            "that split's images and captions, lower optimizer.lr, or set images.val_split to null to keep the last weights"
        )
    return progress


def _steps(
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
    schedule, each = config.schedule, parts.feed.plan.steps_per_epoch
    device = parts.engine.device
    meter = Meter(device=device, peak=peak_tflops(config.engine.precision, given=config.log.peak_tflops))
    batches = parts.feed.batches(progress.step, steps)
    for step in range(progress.step, steps):
        with meter.data_wait():
            batch = next(batches)
        lr = learning_rate(step, steps=steps, steps_per_epoch=each, config=config.optimizer)
        inputs = batch.inputs if parts.masking is None else parts.masking.before(batch.inputs, batch.text_A, step)
        with meter.forward(len(batch.person_A)):
            features = parts.engine.forward(inputs)
        loss = parts.objective(features, batch.person_A.to(device))
        norm = parts.engine.step(loss.total, lr=lr)
        _refuse_not_finite(parts, batch, features, loss, norm, step=step + 1, checkpoints=checkpoints, log=log, config=config)
        if parts.masking is not None:
            parts.masking.after(inputs, batch.text_A, features)
        meter.add(loss, norm=norm, samples=len(batch.person_A))
        progress = replace(progress, step=step + 1)
        due = progress.step == steps or schedule.validates_after(progress.step, steps_per_epoch=each)
        if due:
            with meter.excluded():
                progress = _evaluate(parts, selection, folder=folder, log=log, progress=progress)
        stopped = _stopped(progress, schedule)
        last = stopped or progress.step == steps
        if last or progress.step % schedule.log_every == 0:
            log.numbers("train", step=progress.step, numbers={"lr": lr, **meter.line()})
        if stopped:
            log.event("early_stop", step=progress.step, best_step=progress.best_step, validations_without_better=progress.without_better)
        if last and selection is None:
            _keep(parts, folder, {"step": progress.step, "selected_on": None, "selection": "last step"})
        if last or progress.step % schedule.checkpoint_every == 0:
            with meter.excluded():
                refuse_not_finite_weights(parts.engine.weights_finite(), device=device, step=progress.step)
                checkpoints.save(parts, progress)
                if parts.engine.rank == 0:
                    drop_previous_best(folder)
            log.event("checkpoint", step=progress.step)
        if stopped:
            break
    return progress


def _stopped(progress: Progress, schedule: ScheduleConfig) -> bool:
    return schedule.patience is not None and progress.without_better >= schedule.patience


def _evaluate(parts: Parts, selection: Selection | None, *, folder: Path, log: RunLog, progress: Progress) -> Progress:
    """Validate, keep the weights if none were better, and score the data sets of direct transfer."""
    parts.engine.train(False)
    if selection is not None and parts.validate is not None:
        progress = _select(parts, parts.validate, selection, folder=folder, log=log, progress=progress)
    for other in parts.transfer:
        log.numbers("transfer", step=progress.step, numbers=broadcast(other.evaluate()), dataset=other.dataset, split=other.split)
    parts.engine.train(True)
    return progress


def _select(
    parts: Parts, validate: Callable[[], dict[str, float]], selection: Selection, *, folder: Path, log: RunLog, progress: Progress
) -> Progress:
    scores = broadcast(validate())  # whether weights are kept, which all do together, may not hang on a worker's last bit
    log.numbers("validation", step=progress.step, numbers=scores)
    score = scores[selection.number]
    if not math.isfinite(score):
        log.event(NOT_FINITE, step=progress.step, what=[f"validation {selection.number}"], ranks=[], rows=[])
    if not math.isfinite(score) or (progress.best_score is not None and score <= progress.best_score):
        return replace(progress, without_better=progress.without_better + 1)
    how = {"selected_on": selection.split, "selection": f"best {selection.title}", "exposure": log.marks("validation")}
    _keep(parts, folder, {"step": progress.step, **how, selection.number: score})
    return replace(progress, best_step=progress.step, best_score=score, without_better=0)


def _keep(parts: Parts, folder: Path, facts: dict[str, Any]) -> None:
    """Replace the best weights in `folder` by those at hand."""
    refuse_not_finite_weights(parts.engine.weights_finite(), device=parts.engine.device, step=facts["step"])
    state = parts.engine.full_state(frozen=parts.whole_model)
    if parts.engine.rank == 0:
        replace_best(folder, lambda path: parts.write(state, path, facts))
    parts.engine.barrier()


def _refuse_not_finite(
    parts: Parts,
    batch: TrainBatch,
    features: Tensors,
    loss: Loss,
    norm: float,
    *,
    step: int,
    checkpoints: Checkpoints,
    log: RunLog,
    config: TrainingJob,
) -> None:
    found = not_finite(loss, norm, features, device=parts.engine.device, rows=lambda: parts.feed.names_of(batch.text_A.numpy()))
    if found is None:
        return
    log.event(NOT_FINITE, step=step, what=found.terms, ranks=found.ranks, rows=found.rows)
    kept = broadcast(checkpoints.steps()[-1:])
    raise TrainingError(found.sentence(step=step, checkpoint=kept[0] if kept else None, precision=config.engine.precision))
