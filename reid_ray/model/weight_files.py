"""Reading of weight files (safetensors, PyTorch): names, shapes and tensors under the model's own names.

Names that DistributedDataParallel (`module.`) and torch.compile (`_orig_mod.`) left behind are stripped wherever they stand. No code in
a file is run. Knows files; not models.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from reid_ray.errors import DataError, reason_of

# As transformers looks for them, the first that is there.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# What reading a damaged file raises: from the disk, safetensors, pickle or torch.
UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError)
# Where training checkpoints keep the model's state dictionary.
_INNER = ("state_dict", "model")
_WRAPPERS = ("module", "_orig_mod")

State = dict[str, torch.Tensor]
Shape = tuple[int, ...]


def read_state(file: Path) -> State:
    """A file's tensors under their own names: wrappers' prefixes stripped, a training checkpoint's `state_dict` or
    `model` taken out of it.

    Args:
        file: .safetensors, or a dictionary of tensors that torch.save wrote; no code in it is run.

    Raises:
        DataError: the file is missing, cut off, or something else.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise DataError(f"{file}: cannot be read as weights ({reason_of(error)}); copy it again") from None
    for key in _INNER:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise DataError(f"{file}: holds no dictionary of weights by name; give the model's state dictionary")
    return without_wrappers(found, origin=str(file))


def without_wrappers(state: Mapping[str, torch.Tensor], *, origin: str) -> State:
    """The same tensors without `module.` and `_orig_mod.` anywhere in their names.

    Raises:
        DataError: two names become one.
    """
    plain: State = {}
    for name, value in state.items():
        if plain.setdefault(plain_name(name), value) is not value:
            raise DataError(f"{origin}: holds {plain_name(name)} twice, also as {name}; save the plain model's state dictionary alone")
    return plain


def shapes_in(folder: Path) -> dict[str, Shape] | None:
    """Name -> shape of the weights in a folder in the transformers format, from headers alone; None where there are no safetensors.

    Raises:
        DataError: a file cannot be read.
    """
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None or ".bin" in file.name:
        return None
    return {name: shape for part in parts_of(file) for name, shape in headers(part).items()}


def parts_of(file: Path) -> list[Path]:
    """The files of weights that `file`, of WEIGHT_FILES, stands for."""
    return _shards(file) if file.name.endswith(".index.json") else [file]


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{index}: is no index of weights ({reason_of(error)}); copy the whole model folder again") from None
    lost = [name for name in names if not (index.parent / name).is_file()]
    if lost:
        raise DataError(f"{index}: names {len(lost)} files that are not there ({lost[0]}); copy the whole model folder again")
    return [index.parent / name for name in names]


def headers(file: Path) -> dict[str, Shape]:
    """Name -> shape in a file of safetensors."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except UNREADABLE as error:
        raise DataError(f"{file}: cannot be read as weights ({reason_of(error)}); copy it again") from None


def plain_name(name: str) -> str:
    """A weight's name without wrappers."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
