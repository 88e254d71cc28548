"""Best weights so far (model selection): replaced atomically, and rolled back to the checkpoint when a run resumes.

A checkpoint names the step of the best weights. Better weights found after it belong to steps that a resumed run does again, so they are
dropped then, and the ones before them are kept until the next checkpoint is stored. A resumed run thus compares with, and publishes, its
own best and no other attempt's. Knows folders and steps; not models. Rank 0 alone calls these.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reid_ray.storage import MANIFEST, read_manifest
from reid_ray.train.checkpoint.contents import Progress
from reid_ray.train.recipe import BEST


def replace_best(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a model folder and put it in the place of the best weights; those of the newest checkpoint stay beside it."""
    new, best, before = _beside(folder, "partial"), folder / BEST, _beside(folder, "old")
    shutil.rmtree(new, ignore_errors=True)
    write(new)
    if best.is_dir() and before.is_dir():
        _drop(best)
    elif best.is_dir():
        best.rename(before)
    new.rename(best)
    shutil.rmtree(_beside(folder, "gone"), ignore_errors=True)


def drop_previous_best(folder: Path) -> None:
    """Delete the best weights before the present ones: call once a checkpoint that names the present ones is stored."""
    shutil.rmtree(_beside(folder, "old"), ignore_errors=True)


def restore_best(folder: Path, progress: Progress) -> Progress:
    """Roll the best weights back to those that `progress` names, before training resumes from it.

    Returns:
        `progress`; without a best score if its weights are gone, so that the next validation chooses anew.
    """
    best, before = folder / BEST, _beside(folder, "old")
    wanted = progress.best_step or progress.step  # without a validation split the last weights are kept, at the last step
    if _step_of(best) != wanted:
        _drop(best)
        if _step_of(before) == wanted:
            before.rename(best)
    for end in ("old", "partial", "gone"):
        shutil.rmtree(_beside(folder, end), ignore_errors=True)
    if progress.best_step and not best.is_dir():
        return replace(progress, best_step=0, best_score=None)
    return progress


def _step_of(model: Path) -> int | None:
    """After which step a model folder was written; None if it is not there or not whole."""
    if not (model / MANIFEST).is_file():
        return None
    return int(read_manifest(model)["facts"]["step"])


def _drop(folder: Path) -> None:
    """Delete so that a half deleted folder has another name."""
    gone = _beside(folder.parent, "gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.is_dir():
        folder.rename(gone)


def _beside(folder: Path, end: str) -> Path:
    return folder / f".{BEST}.{end}"
