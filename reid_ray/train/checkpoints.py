"""Checkpoints through Ray Train: every worker brings its part, Ray merges them, a new worker group starts from the newest.

Knows Ray Train's report and an engine's save and load; not models or data.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import ray.train

from reid_ray.storage import write_json
from reid_ray.train.parts import Masking
from reid_ray.train.zero import ZeroEngine

_PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a run has come: steps done, and the best validation so far (best_step is 0 and best_score None before the first).

    without_better counts the validations since then.
    """

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    without_better: int = 0


def restore(engine: ZeroEngine, masking: Masking | None) -> Progress:
    """Load the newest checkpoint of this run into `engine` and `masking`; Progress() if there is none."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return Progress()
    with checkpoint.as_directory() as folder:
        engine.load(Path(folder))
        if masking is not None:
            masking.load(Path(folder))
        return Progress(**json.loads((Path(folder) / _PROGRESS).read_text(encoding="utf-8")))


def save(engine: ZeroEngine, masking: Masking | None, progress: Progress) -> None:
    """Write a checkpoint; returns when Ray Train has the parts of all workers."""
    folder = Path(tempfile.mkdtemp(prefix="reid-ray-"))
    engine.save(folder)
    if masking is not None:
        masking.save(folder)
    if ray.train.get_context().get_world_rank() == 0:
        write_json(folder / _PROGRESS, asdict(progress))
    ray.train.report(asdict(progress), checkpoint=ray.train.Checkpoint.from_directory(folder), delete_local_checkpoint_after_upload=True)
