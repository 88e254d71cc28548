"""The tune job for multimodal LLMs, worker side: builds model, heads, losses, data loader and validation for the training loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from reid_ray.model.mllm.inputs import Chat
from reid_ray.model.mllm.model_folder import OpenMllm, open_mllm, save_mllm
from reid_ray.train.losses.across_workers import first_row, gather_rows
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.instruction_feed import InstructionFeed
from reid_ray.train.mllm.module import SyncReid
from reid_ray.train.mllm.objective import build_tune_objective
from reid_ray.train.mllm.validation import ImageValidation
from reid_ray.train.optimizer import build_optimizer
from reid_ray.train.parts import Parts, Tensors
from reid_ray.train.recipe import DATA
from reid_ray.train.zero import ZeroEngine

_MODEL, _HEADS = "mllm.model.", "heads."  # where parameters lie in the module


def build_parts(config: TuneJob, prepared: Path) -> Parts:
    """The parts of this worker.

    Args:
        config: the job.
        prepared: the run's folder, prepared by MllmRecipe, or this node's copy of it.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    share = config.batches.size // world
    bf16 = config.engine.precision == "bf16"
    opened = open_mllm(config.model, dtype=torch.bfloat16 if bf16 else torch.float32, seed=config.batches.seed)
    chat = Chat(opened.processor, context=opened.mllm.context)
    feed = InstructionFeed(prepared / DATA, config, chat=chat, rank=rank, world=world)
    module = build_module(config, opened, persons=feed.persons)
    engine = ZeroEngine(
        module, build_optimizer(module, config.optimizer), config=config.engine, clip_norm=config.optimizer.clip_norm, batch_size=share
    )

    def write(state: Tensors, path: Path, facts: dict[str, Any]) -> None:
        known = {"pooling": config.objective.pooling, "text_latents": config.objective.sdm.weight > 0}
        write_tuned(opened, module, state, path, facts={**facts, **known})

    def validation() -> ImageValidation:
        return ImageValidation(prepared / DATA, chat=chat, objective=config.objective, batch_size=max(share, 8), rank=rank, world=world)

    validate = validation() if config.images.watched is not None else None
    return Parts(
        engine,
        build_tune_objective(config.objective),
        feed,
        write,
        validate=None if validate is None else lambda: validate(engine.forward),
        whole_model=False,
    )


def build_module(config: TuneJob, opened: OpenMllm, *, persons: int) -> SyncReid:
    """The module in training mode; heads start alike on every worker, or from the tuned folder that training goes on from."""
    torch.manual_seed(config.batches.seed)
    module = SyncReid(opened.mllm, config.objective, persons=persons, gather=lambda rows: (gather_rows(rows), first_row(len(rows))))
    own = module.heads.state_dict()
    # Classifiers of other identities start anew.
    known = {name: value for name, value in opened.heads.items() if name in own and own[name].shape == value.shape}
    module.heads.load_state_dict({**own, **known})
    return module.train()


def write_tuned(opened: OpenMllm, module: SyncReid, state: Tensors, path: Path, *, facts: dict[str, Any]) -> None:
    """A model folder from the trained weights by name; the heads' running means are taken from `module`."""
    heads = {name.removeprefix(_HEADS): value for name, value in state.items() if name.startswith(_HEADS)}
    heads |= {name: value.detach().float().cpu() for name, value in module.heads.named_buffers()}
    trained = {name.removeprefix(_MODEL): value for name, value in state.items() if name.startswith(_MODEL)}
    save_mllm(opened, path, trained=trained, heads=heads, facts=facts)
