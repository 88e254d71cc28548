"""The train_editor job, worker side: opens the editor that training starts from and builds module, engine, data loader and objective."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from reid_ray.model.editor.editor_folder import OpenEditor, open_editor, save_editor
from reid_ray.train.editor.config import TrainEditorJob
from reid_ray.train.editor.edit_feed import EditFeed
from reid_ray.train.editor.editor_training import EditorTraining
from reid_ray.train.editor.objective import EditObjective
from reid_ray.train.optimizer import build_optimizer
from reid_ray.train.parts import Parts, Tensors
from reid_ray.train.recipe import DATA, START
from reid_ray.train.zero import ZeroEngine

_NETWORK = "network."  # where the editor's parameters lie in the module


def build_parts(config: TrainEditorJob, prepared: Path) -> Parts:
    """The parts of this worker.

    Args:
        config: the job.
        prepared: the run's folder, prepared by EditorRecipe, or this node's copy of it.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    opened = open_editor(prepared / START)
    feed = EditFeed(prepared / DATA, config.batches, config.objective, opened=opened, rank=rank, world=world)
    whole = copy.deepcopy(opened.network) if rank == 0 else None  # ZeRO-3 takes the module's own weights apart
    module = build_module(config, opened, values={name: len(values) for name, values in feed.values.items()})
    engine = ZeroEngine(
        module,
        build_optimizer(module, config.optimizer),
        config=config.engine,
        clip_norm=config.optimizer.clip_norm,
        batch_size=config.batches.size // world,
    )

    def write(state: Tensors, path: Path, facts: dict[str, Any]) -> None:
        assert whole is not None
        trained = {name.removeprefix(_NETWORK): value for name, value in state.items() if name.startswith(_NETWORK)}
        whole.load_state_dict({**whole.state_dict(), **trained})
        save_editor(OpenEditor(whole, opened.tokenizer, opened.scheduler, opened.shape), path, facts, half=config.model.saved == "float16")

    return Parts(engine, EditObjective(config.objective), feed, write, whole_model=False)


def build_module(config: TrainEditorJob, opened: OpenEditor, *, values: dict[str, int]) -> EditorTraining:
    """The module in training mode; what reads attributes starts alike on every worker."""
    torch.manual_seed(config.batches.seed)
    module = EditorTraining(
        opened.network,
        opened.scheduler,
        trains=config.trains,
        localised=config.objective.localisation > 0,
        values=values if config.objective.attribute else {},
    )
    return module.train()
