"""Preflight checks of vLLM models, before Ray or an engine starts: block sizes, key-value caches, chat templates, adapters.

Knows the configuration and the files of local models; of a hub's, only what its configuration says. Starts nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reid_ray.caption.config import CaptionerConfig, RewriterConfig
from reid_ray.caption.engines.adapters import check_adapter
from reid_ray.caption.engines.kv_cache import check_cache
from reid_ray.errors import ConfigError
from reid_ray.storage.files import read_json

_CPU_BLOCK = 32  # vLLM's attention on CPUs takes blocks of a multiple of this
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tekken.json")  # Mistral's tokenizer brings a template of its own
_TEMPLATE_FIELDS = ("tokenizer_config.json", "processor_config.json")


def check_servable(section: CaptionerConfig | RewriterConfig, model: str, *, field: str) -> None:
    """Refuse a model with its engine and adapter that vLLM could not serve.

    Args:
        section: the captioner or the rewriter.
        model: its model, resolved: a local folder or a hub name.
        field: dotted key of the section, for messages.

    Raises:
        ReidRayError: it could not; names the key and what to do.
    """
    size = section.engine.block_size
    if not section.pool.num_gpus and size is not None and size % _CPU_BLOCK:
        raise ConfigError(
            f"{field}.engine.block_size: is {size}, but on CPUs (pool.num_gpus: 0) vLLM takes multiples of {_CPU_BLOCK}; "
            f"set it to {_CPU_BLOCK}"
        )
    folder = Path(model)
    if folder.is_dir():
        check_cache(section.engine, model, field=field)
        _check_template(section, folder, field=field)
    if section.adapter is not None:
        check_adapter(section.adapter, folder, field=f"{field}.adapter")


def _check_template(section: CaptionerConfig | RewriterConfig, folder: Path, *, field: str) -> None:
    if section.engine.chat_template is not None or "tokenizer" in section.engine.extra:
        return
    if any((folder / name).is_file() for name in _TEMPLATE_FILES):
        return
    if any(_read(folder / name).get("chat_template") for name in _TEMPLATE_FIELDS):
        return
    if _vllm_brings_one(str(_read(folder / "config.json").get("model_type")), folder):
        return
    raise ConfigError(
        f"{field}.model: {section.model} has no chat template; set {field}.engine.chat_template, or copy chat_template.jinja of the "
        "model's own repository into the folder"
    )


def _vllm_brings_one(model_type: str, folder: Path) -> bool:
    return fallback_template(model_type, folder) is not None


def fallback_template(model_type: str, folder: Path) -> Path | None:
    """The chat template that vLLM itself brings for a kind of model."""
    from vllm.transformers_utils.chat_templates import get_chat_template_fallback_path

    found = get_chat_template_fallback_path(model_type, str(folder))
    return None if found is None else Path(found)


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of a model; {} where there is none, or no object in it: its reader says so."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
