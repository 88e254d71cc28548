"""What each Ray Train worker does: put the parts of dual-encoder training together and hand them to the loop."""

from __future__ import annotations

import os
import shutil
import socket
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers.utils.logging import disable_progress_bar

from reid_ray.config.train import TrainJob
from reid_ray.model.dual_encoder import DualEncoder
from reid_ray.model.loading import load_encoder
from reid_ray.train import checkpoints
from reid_ray.train.checkpoints import Progress
from reid_ray.train.feed import Feed
from reid_ray.train.log import RunLog
from reid_ray.train.loop import Parts, train
from reid_ray.train.objective import build_objective
from reid_ray.train.optimizer import build_optimizer
from reid_ray.train.towers import TwoTowers
from reid_ray.train.validation import Validation
from reid_ray.train.zero import ZeroEngine

# Inside a run's folder: what the driver prepares before, and what the workers leave.
START, DATA, BEST = "start", "data", "best"


def train_worker(settings: dict[str, Any]) -> None:
    """Train as one of the workers.

    Args:
        settings: {"config": TrainJob as JSON values, "folder": the run's folder, on storage that all nodes share}.
    """
    config, folder = TrainJob.model_validate(settings["config"]), Path(settings["folder"])
    rank, world = dist.get_rank(), dist.get_world_size()
    # DeepSpeed calls collectives by names that torch has renamed; every worker would say so.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*deprecated.*all_gather_single.*")
    disable_progress_bar()
    if not torch.cuda.is_available():
        torch.set_num_threads(config.workers.torch_threads)
    encoder = load_encoder(folder / START)
    assert isinstance(encoder, DualEncoder)
    transform, tokenizer, context = encoder.transform, encoder.tokenizer, encoder.context
    share = config.batches.size // world
    module = TwoTowers(encoder)
    engine = ZeroEngine(
        module,
        build_optimizer(module, config.optimizer),
        config=config.engine,
        clip_norm=config.optimizer.clip_norm,
        batch_size=share,
    )
    feed = Feed(
        folder / DATA,
        config.batches,
        rewrite_share=config.captions.rewrite_share,
        transform=transform,
        tokenizer=tokenizer,
        context=context,
        rank=rank,
        world=world,
    )
    validation = (
        Validation(
            folder / DATA, transform=transform, tokenizer=tokenizer, context=context, batch_size=max(share, 64), rank=rank, world=world
        )
        if config.images.val_split is not None
        else None
    )
    progress = checkpoints.restore(engine)
    steps = config.schedule.epochs * feed.plan.steps_per_epoch
    steps = min(steps, config.schedule.max_steps or steps)
    log = RunLog(folder, start=progress.step, writes=rank == 0)
    log.event("start", step=progress.step, steps=steps, steps_per_epoch=feed.plan.steps_per_epoch, workers=_who_is_here())

    def keep(at: Progress) -> None:
        state = engine.full_state()
        if rank == 0:
            _replace_model(module.encoder_with(state, temperature=config.objective.sdm.temperature), folder / BEST, _facts(config, at))
        dist.barrier()

    validate = (lambda: validation(engine.forward)) if validation is not None else None
    parts = Parts(engine, build_objective(config.objective), feed, validate, keep, log)
    train(parts, progress=progress, steps=steps, schedule=config.schedule, optimizer=config.optimizer)
    log.close()


def _who_is_here() -> list[dict[str, Any]]:
    here = {"rank": dist.get_rank(), "host": socket.gethostname(), "pid": os.getpid()}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, here)
    return everyone


def _facts(config: TrainJob, at: Progress) -> dict[str, Any]:
    if config.images.val_split is None:
        return {"step": at.step, "selected_on": None, "selection": "last step"}
    return {"step": at.step, "selected_on": config.images.val_split, "selection": "best text-to-image R@1", "r1": at.best_r1}


def _replace_model(encoder: DualEncoder, path: Path, facts: dict[str, Any]) -> None:
    hidden = path.with_name(f".{path.name}.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    encoder.save(hidden, facts)
    shutil.rmtree(path, ignore_errors=True)
    hidden.rename(path)
