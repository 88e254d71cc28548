"""Training worker, the function that Ray Train calls: builds the recipe's parts, resumes from the newest checkpoint, trains."""

from __future__ import annotations

import gc
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from reid_ray.errors import ReidRayError, TrainingError
from reid_ray.redaction import redacted
from reid_ray.train.checkpoint.best import restore_best
from reid_ray.train.checkpoint.checkpoint_place import Checkpoints
from reid_ray.train.collectives import broadcast
from reid_ray.train.config import StagingConfig
from reid_ray.train.log.run_log import RunLog
from reid_ray.train.loop import train
from reid_ray.train.recipe import DATA, Recipe
from reid_ray.train.shipment import Shipment, staged
from reid_ray.train.worker_errors import is_stopped, stop_run


def train_worker(settings: dict[str, Any]) -> None:
    """Train as one of the workers. An error that a user can mend is handed to the driver (worker_errors), and later groups do nothing.

    Args:
        settings: {"recipe": Recipe, "folder": the run's folder, on storage that all nodes share, "shipment": what was prepared,
            which a node may read from elsewhere (shipment.py), "exposure": of scores, as of RunLog, "filesystem" and "checkpoints":
            where checkpoints are}.
    """
    folder = Path(settings["folder"])
    if broadcast(is_stopped(folder)):
        return
    try:
        _train(settings)
    except TrainingError as error:  # raised on all workers alike, so nobody waits for this one
        if dist.get_rank() == 0:
            stop_run(folder, error)
    except ReidRayError as error:  # on this one alone, perhaps: failing ends the others, who may wait for it
        stop_run(folder, error)
        raise
    finally:
        gc.unfreeze()


def _train(settings: dict[str, Any]) -> None:
    recipe: Recipe = settings["recipe"]
    folder, config = Path(settings["folder"]), recipe.config
    # DeepSpeed calls collectives by names that torch has renamed; every worker would say so.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*deprecated.*(all_gather|reduce_scatter)_single.*")
    if not torch.cuda.is_available():
        torch.set_num_threads(config.workers.torch_threads)
    with _no_search_for_garbage():
        parts = recipe.parts(folder, staged(settings["shipment"], config.staging))
    parts.feed.elsewhere = partial(_prepared_data, settings["shipment"], config.staging)
    checkpoints = Checkpoints(settings["filesystem"], settings["checkpoints"], keep=config.schedule.keep_checkpoints)
    progress = checkpoints.restore(parts)
    progress = broadcast(restore_best(folder, progress) if dist.get_rank() == 0 else progress)
    each = parts.feed.plan.steps_per_epoch
    steps = config.schedule.epochs * each
    steps = min(steps, config.schedule.max_steps or steps)
    settings_shown = redacted(config.model_dump(mode="json"))  # they go to boards, which may be elsewhere
    writes, exposure = dist.get_rank() == 0, settings["exposure"]
    log = RunLog(folder, config.log, start=progress.step, writes=writes, settings=settings_shown, exposure=exposure)
    log.event("start", step=progress.step, steps=steps, steps_per_epoch=each, workers=_worker_places())
    train(
        parts,
        folder=folder,
        selection=recipe.selection,
        checkpoints=checkpoints,
        log=log,
        progress=progress,
        steps=steps,
        config=config,
    )
    if parts.finish is not None:
        parts.finish()
    log.close()


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """While engines are imported and a model is built: next to nothing of it is garbage, and many searches take a fifth of the start.

    It is searched once, at the end, and what is left never again; train_worker undoes that when it is done.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def _prepared_data(shipment: Shipment, config: StagingConfig) -> Path:
    """Where the prepared data lie on the node that asks."""
    return staged(shipment, config) / DATA


def _worker_places() -> list[dict[str, Any]]:
    here = {"rank": dist.get_rank(), "host": socket.gethostname(), "pid": os.getpid()}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, here)
    return everyone
