"""Checkpoint contents: weights, Adam's moments, random states and progress, resharded when the number of workers changes.

    manifest.json           written last; what there is, how large, and the step, which is where the sampler and the learning rate are
    model/                  the weights at hand, as the recipe publishes them: under transformers' own names
    training/*.safetensors  of each weight that trains: itself and Adam's two moments, whole, float32
    workers/*.safetensors   of each worker: the state of its random numbers, and buffers such as running means
    ...                     what masking keeps

With the same number of workers, ZeRO stage and hardware a resumed run equals an undisturbed one bit by bit. With another number or stage
weights, moments and noise levels are taken over bit by bit too; what follows differs by the order in which floats are added, and in what a
forward pass draws at random (dropout), which is then seeded from step and worker. Knows files and Parts; not Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reid_ray.errors import DataError
from reid_ray.model.strict_loading import compare
from reid_ray.storage import MANIFEST, read_manifest
from reid_ray.train.parts import Masking, Parts, Tensors
from reid_ray.train.zero import ZeroEngine
from reid_ray.versions import numbered

KIND = "training-checkpoint"
_FILE_BYTES = 1 << 30  # a file of training/ is closed when it has grown beyond this, so that rank 0 holds no more at a time
_RANDOM = "random/"
_PARTS = ("weight", "exp_avg", "exp_avg_sq")  # of each trained weight


@dataclass(frozen=True)
class Progress:
    """Training progress: steps done, and the best validation so far (best_step is 0 and best_score None before the first).

    without_better counts the validations since then (early stopping).
    """

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    without_better: int = 0


def write_parts(folder: Path, parts: Parts, progress: Progress, *, world: int) -> dict[str, Any]:
    """Write this worker's part of a checkpoint into `folder`; every worker must call it, the folder may be shared or its own.

    Returns:
        On rank 0 the manifest but for its list of files, elsewhere {}.
    """
    engine = parts.engine
    weights = engine.full_state(frozen=parts.whole_model)
    if engine.rank == 0:
        parts.write(weights, folder / "model", {"step": progress.step, "selected_on": None, "selection": "checkpoint"})
    del weights
    index = _write_training(folder / "training", engine)
    (folder / "workers").mkdir(parents=True, exist_ok=True)
    save_file({**engine.buffers(), **_random_state()}, folder / _worker_file(engine.rank, world))
    if parts.masking is not None:
        parts.masking.save(folder)
    if engine.rank:
        return {}
    return {
        **numbered("checkpoint"),
        "kind": KIND,
        "progress": asdict(progress),
        "workers": world,
        "zero_stage": engine.stage,
        "training": index,
    }


def read_parts(folder: Path, engine: ZeroEngine, masking: Masking | None) -> Progress:
    """Bring `engine` and `masking` to where the checkpoint in `folder` is; every worker must call it.

    Raises:
        DataError: the folder is not a whole checkpoint of this module.
    """
    manifest = check(folder)
    progress = Progress(**manifest["progress"])
    reader = _Training(folder, manifest["training"])
    reader.check({name: _whole_shape(weight) for name, weight in engine.module.named_parameters() if weight.requires_grad})
    engine.restore(reader, steps=progress.step)
    same = manifest["workers"] == torch.distributed.get_world_size()
    rank = engine.rank if engine.rank < manifest["workers"] else 0
    own = load_file(folder / _worker_file(rank, manifest["workers"]))
    engine.load_buffers({name: value for name, value in own.items() if not name.startswith(_RANDOM)})
    if same:
        _set_random_state(own)
    else:
        seed_forward(progress.step, engine.rank)
    if masking is not None:
        masking.load(folder)
    return progress


def seed_forward(step: int, rank: int) -> None:
    """Seed what a forward pass draws at random (dropout) by step and worker: two workers that drew alike would drop the same."""
    torch.manual_seed(step * 10_007 + rank)


def check(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in `folder`.

    Raises:
        DataError: it is no checkpoint, or a file of it is missing or cut off.
    """
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder}: has no {MANIFEST}, so it is no whole checkpoint; use an older one")
    manifest = read_manifest(folder)
    if manifest.get("kind") != KIND:
        raise DataError(f"{folder / MANIFEST}: kind is {manifest.get('kind')!r}, not {KIND!r}; give a checkpoint folder")
    for name, size in manifest["files"].items():
        there = (folder / name).stat().st_size if (folder / name).is_file() else None
        if there != size:
            raise DataError(f"{folder / name}: {'is missing' if there is None else f'has {there} bytes'}, should have {size}; use another")
    return manifest


def _write_training(folder: Path, engine: ZeroEngine) -> dict[str, str]:
    """{weight: name of the file that holds it}; written by rank 0 while all gather."""
    pending: Tensors = {}
    index: dict[str, str] = {}
    files = 0

    def flush() -> None:
        nonlocal files
        if pending:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(pending, folder / f"{files:05d}.safetensors")
            pending.clear()
            files += 1

    for name, state in engine.training_state():
        if not state:
            continue
        index[name] = f"training/{files:05d}.safetensors"
        pending.update({f"{name}/{key}": value for key, value in state.items()})
        if sum(value.nbytes for value in pending.values()) >= _FILE_BYTES:
            flush()
    flush()
    return index


class _Training:
    """Reads training/, a weight at a time."""

    def __init__(self, folder: Path, index: dict[str, str]) -> None:
        self._folder, self._index = folder, index
        self._open: tuple[str, Any] | None = None

    def check(self, needed: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse other names and shapes; reads headers alone."""
        found: dict[str, tuple[int, ...]] = {}
        for file in sorted(set(self._index.values())):
            with safe_open(self._folder / file, framework="pt") as opened:
                names = set(opened.keys())
                found |= {
                    name: tuple(opened.get_slice(f"{name}/weight").get_shape())
                    for name, place in self._index.items()
                    if place == file and {f"{name}/{key}" for key in _PARTS} <= names
                }
        compare(str(self._folder), needed=needed, found=found)

    def __call__(self, name: str) -> Tensors:
        file = self._index[name]
        if self._open is None or self._open[0] != file:
            self._open = (file, safe_open(self._folder / file, framework="pt"))
        return {key: self._open[1].get_tensor(f"{name}/{key}") for key in _PARTS}


def _whole_shape(weight: torch.Tensor) -> tuple[int, ...]:
    """The shape of a weight that ZeRO-3 may have taken apart."""
    return tuple(getattr(weight, "ds_shape", weight.shape))


def _worker_file(rank: int, world: int) -> str:
    return f"workers/{rank:05d}-of-{world:05d}.safetensors"


def _random_state() -> Tensors:
    state = {f"{_RANDOM}cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state[f"{_RANDOM}cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: Tensors) -> None:
    torch.set_rng_state(state[f"{_RANDOM}cpu"])
    if f"{_RANDOM}cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[f"{_RANDOM}cuda"])
