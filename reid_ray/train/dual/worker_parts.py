"""The train job for dual encoders, worker side: builds towers, losses, data loader, masking and validation for the training loop."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from reid_ray.model.dual.dual_encoder import DualEncoder
from reid_ray.model.pretrained import load_encoder
from reid_ray.model.recompute import checkpoint_layers
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.direct_transfer import transfer_folder
from reid_ray.train.dual.towers import LossHeads, PairCollate, TwoTowers
from reid_ray.train.dual.validation import Validation
from reid_ray.train.feed.augment import fill_of
from reid_ray.train.feed.loader import Feed
from reid_ray.train.losses.logit_scale import LogitScale
from reid_ray.train.losses.objective import build_objective
from reid_ray.train.masking.noise_aware import vocabulary_of
from reid_ray.train.masking.noise_export import write_noise
from reid_ray.train.masking.noise_store import NoiseStore
from reid_ray.train.masking.step_masks import StepMasks
from reid_ray.train.optimizer import build_optimizer
from reid_ray.train.parts import Parts, Tensors, Transfer
from reid_ray.train.recipe import DATA, NOISE, START
from reid_ray.train.zero import ZeroEngine


def build_parts(config: TrainJob, folder: Path, prepared: Path) -> Parts:
    """The parts of this worker.

    Args:
        config: the training job.
        folder: the run's folder.
        prepared: the same, prepared by DualEncoderRecipe, or this node's copy of what that wrote.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    share = config.batches.size // world
    encoder = load_encoder(prepared / START)
    assert isinstance(encoder, DualEncoder)
    if config.model.gradient_checkpointing:
        checkpoint_layers(encoder.model)
    transform, tokenizer, context = encoder.transform, encoder.tokenizer, encoder.context
    feed = Feed(
        prepared / DATA,
        config.batches,
        rewrite_share=config.captions.rewrite_share,
        resize=transform.resize,
        fill=fill_of(config.batches.fill, mean=transform.mean, std=transform.std),
        collate=PairCollate(transform, tokenizer, context=context),
        rank=rank,
        world=world,
    )
    module = _module(config, encoder, feed, vocab_size=len(tokenizer))
    optimizer = build_optimizer(module, config.optimizer)
    engine = ZeroEngine(module, optimizer, config=config.engine, clip_norm=config.optimizer.clip_norm, batch_size=share)
    masker = _masker(config, feed, tokenizer, context=context, device=engine.device)

    def write(state: Tensors, path: Path, facts: dict[str, Any]) -> None:
        module.encoder_with(state, temperature=config.objective.saved_temperature).save(path, facts)

    def validation(path: Path) -> Callable[[], dict[str, float]]:
        size = max(share, 64)
        scored = Validation(path, transform=transform, tokenizer=tokenizer, context=context, batch_size=size, rank=rank, world=world)
        return lambda: scored(engine.forward)

    def export_noise() -> None:
        assert masker is not None
        if rank == 0:  # what an attempt of another number of workers may have left
            shutil.rmtree(folder / NOISE, ignore_errors=True)
        dist.barrier()
        write_noise(folder / NOISE, masker.store, feed.texts_at, tokenizer, context=context)

    return Parts(
        engine,
        build_objective(config.objective),
        feed,
        write,
        masking=masker,
        validate=validation(prepared / DATA) if config.images.watched is not None else None,
        transfer=[
            Transfer(other.name, other.val_split, validation(transfer_folder(prepared, other)))
            for other in config.transfer
            if other.val_split is not None
        ],
        finish=export_noise if masker is not None and config.masking.kind == "nam" and config.masking.export else None,
    )


def _module(config: TrainJob, encoder: DualEncoder, feed: Feed, *, vocab_size: int) -> TwoTowers:
    torch.manual_seed(config.batches.seed)  # the heads' first weights, the same on every worker
    start = encoder.family.scale_and_bias(encoder.model)
    heads = LossHeads(config.objective, dim=encoder.dim, persons=feed.persons, vocab_size=vocab_size, sigmoid_start=start)
    scale = LogitScale(encoder.model.logit_scale.item()) if config.objective.infonce.learns_scale else None
    return TwoTowers(encoder, heads, chunk=config.batches.chunk, depth=config.masking.depth, scale=scale)


def _masker(config: TrainJob, feed: Feed, tokenizer: Any, *, context: int, device: torch.device) -> StepMasks | None:
    if config.masking.kind == "none":
        return None
    rows = feed.texts if config.masking.kind == "nam" else 0
    return StepMasks(
        config.masking,
        vocabulary_of(tokenizer),
        NoiseStore(rows, context, rank=dist.get_rank(), world=dist.get_world_size()),
        seed=config.batches.seed,
        steps_per_epoch=feed.plan.steps_per_epoch,
        device=device,
        targets=config.objective.irr.weight > 0,
    )
