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

from reid_ray.config.train import TrainJob
from reid_ray.model.dual_encoder import DualEncoder
from reid_ray.model.loading import load_encoder
from reid_ray.train import checkpoints
from reid_ray.train.checkpoints import Progress
from reid_ray.train.feed import Feed
from reid_ray.train.log import RunLog
from reid_ray.train.loop import Parts, train
from reid_ray.train.masker import Masker
from reid_ray.train.masking import vocabulary_of
from reid_ray.train.noise_export import write_noise
from reid_ray.train.noise_store import NoiseStore
from reid_ray.train.objective import build_objective
from reid_ray.train.optimizer import build_optimizer
from reid_ray.train.towers import Heads, PairCollate, TwoTowers
from reid_ray.train.validation import Validation
from reid_ray.train.zero import ZeroEngine

# Inside a run's folder: what the driver prepares before, and what the workers leave.
START, DATA, BEST, NOISE = "start", "data", "best", "noise"


def train_worker(settings: dict[str, Any]) -> None:
    """Train as one of the workers.

    Args:
        settings: {"config": TrainJob as JSON values, "folder": the run's folder, on storage that all nodes share}.
    """
    config, folder = TrainJob.model_validate(settings["config"]), Path(settings["folder"])
    rank, world = dist.get_rank(), dist.get_world_size()
    # DeepSpeed calls collectives by names that torch has renamed; every worker would say so.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*deprecated.*(all_gather|reduce_scatter)_single.*")
    if not torch.cuda.is_available():
        torch.set_num_threads(config.workers.torch_threads)
    encoder = load_encoder(folder / START)
    assert isinstance(encoder, DualEncoder)
    transform, tokenizer, context = encoder.transform, encoder.tokenizer, encoder.context
    share = config.batches.size // world
    feed = Feed(
        folder / DATA,
        config.batches,
        rewrite_share=config.captions.rewrite_share,
        resize=transform.resize,
        fill=transform.mean_colour,
        collate=PairCollate(transform, tokenizer, context=context),
        rank=rank,
        world=world,
    )
    module = _module(config, encoder, feed, vocab_size=len(tokenizer))
    engine = ZeroEngine(
        module,
        build_optimizer(module, config.optimizer),
        config=config.engine,
        clip_norm=config.optimizer.clip_norm,
        batch_size=share,
    )
    masker = _masker(config, feed, tokenizer, context=context, device=engine.device)
    validation = (
        Validation(
            folder / DATA, transform=transform, tokenizer=tokenizer, context=context, batch_size=max(share, 64), rank=rank, world=world
        )
        if config.images.val_split is not None
        else None
    )
    progress = checkpoints.restore(engine, masker)
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
    parts = Parts(engine, build_objective(config.objective), feed, masker, validate, keep, log)
    train(parts, progress=progress, steps=steps, schedule=config.schedule, optimizer=config.optimizer)
    if config.masking.kind == "nam" and config.masking.export:
        _export_noise(folder / NOISE, masker, feed, tokenizer, context=context)
    log.close()


def _module(config: TrainJob, encoder: DualEncoder, feed: Feed, *, vocab_size: int) -> TwoTowers:
    torch.manual_seed(config.batches.seed)  # the heads' first weights, the same on every worker
    heads = Heads(config.objective, dim=encoder.dim, persons=feed.persons, vocab_size=vocab_size)
    return TwoTowers(encoder, heads, chunk=config.batches.chunk, depth=config.masking.depth)


def _masker(config: TrainJob, feed: Feed, tokenizer: Any, *, context: int, device: torch.device) -> Masker:
    rows = feed.texts if config.masking.kind == "nam" else 0
    return Masker(
        config.masking,
        vocabulary_of(tokenizer),
        NoiseStore(rows, context, rank=dist.get_rank(), world=dist.get_world_size()),
        seed=config.batches.seed,
        steps_per_epoch=feed.plan.steps_per_epoch,
        device=device,
        targets=config.objective.irr.weight > 0,
    )


def _export_noise(folder: Path, masker: Masker, feed: Feed, tokenizer: Any, *, context: int) -> None:
    if dist.get_rank() == 0:  # what an attempt of another number of workers may have left
        shutil.rmtree(folder, ignore_errors=True)
    dist.barrier()
    write_noise(folder, masker.store, feed.texts_at, tokenizer, context=context)


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
