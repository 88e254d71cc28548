"""Size of an engine's key-value cache from its model's geometry: layers, key-value heads, head size, type.

Knows vLLM's blocks and what a model's configuration says; starts nothing. A model whose layers do not all keep every token (latent
attention, sliding windows, state spaces) needs less than is computed here: nothing is refused for it, vLLM itself does that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from reid_ray.caption.config import VllmConfig
from reid_ray.config.common import PoolConfig
from reid_ray.errors import ConfigError

_SHARE = 16  # of the machine's memory, for one engine of several
_CPU_BLOCK = 128  # tokens; vLLM's choice on CPUs
_BYTES = {"float32": 4}  # of a number in the cache; auto never takes more than 2
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of a container


def cache_arguments(model: str, engine: VllmConfig, pool: PoolConfig) -> dict[str, Any]:
    """The size of the cache as an argument of vLLM; {} on GPUs where none is given, for there vLLM measures what is left.

    Args:
        model: its folder.
        engine: its kv_cache_mb is the size, if given.
        pool: whether the engine has a GPU.
    """
    if engine.kv_cache_mb is not None:
        return {"kv_cache_memory_bytes": engine.kv_cache_mb << 20}
    if pool.num_gpus:
        return {}
    share = memory_bytes() // _SHARE
    geometry = read_geometry(model, engine)
    if geometry is None:
        return {"kv_cache_memory_bytes": share}
    one = request_bytes(geometry, engine)
    return {"kv_cache_memory_bytes": max(one, min(share, one * engine.max_num_seqs))}


def check_cache(engine: VllmConfig, model: str, *, field: str) -> None:
    """Refuse a given size that does not hold one request.

    Args:
        engine: of the section.
        model: local folder of its model.
        field: dotted key of the section, for messages.

    Raises:
        ConfigError: it does not; names the key and the size that does.
    """
    if engine.kv_cache_mb is None:
        return
    geometry = read_geometry(model, engine)
    if geometry is None or not keeps_every_token(geometry):
        return
    needed = -(-request_bytes(geometry, engine) // (1 << 20))
    if engine.kv_cache_mb < needed:
        raise ConfigError(
            f"{field}.engine.kv_cache_mb: is {engine.kv_cache_mb}, but one request of max_model_len {engine.max_model_len} takes {needed} "
            f"MiB with {model}; set it to null, which takes what the model needs, or to {needed} or more"
        )


def read_geometry(model: str, engine: VllmConfig) -> Any | None:
    """The configuration of a model's language part, as transformers has it; None for a model that transformers does not know."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=engine.trust_remote_code)
    except (OSError, ValueError, LookupError, ImportError):  # vLLM knows it, or refuses it in its own words
        return None
    text = config.get_text_config()
    known = all(isinstance(getattr(text, name, None), int) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    return text if known else None


def keeps_every_token(geometry: Any) -> bool:
    """Whether each layer has the key and the value of every token in the cache."""
    others = ("kv_lora_rank", "sliding_window", "num_kv_shared_layers", "layers_block_type", "ssm_state_size", "mamba_d_state")
    kinds = set(getattr(geometry, "layer_types", None) or ())
    return kinds <= {"full_attention"} and not any(getattr(geometry, name, None) for name in others)


def request_bytes(geometry: Any, engine: VllmConfig) -> int:
    """Bytes of the cache that one request of max_model_len takes, with the block that vLLM keeps for itself."""
    heads = getattr(geometry, "num_key_value_heads", None) or geometry.num_attention_heads
    size = getattr(geometry, "head_dim", None) or geometry.hidden_size // geometry.num_attention_heads
    kind = str(engine.extra.get("kv_cache_dtype", "auto"))
    number = _BYTES.get(engine.dtype, 2) if kind == "auto" else 1
    token = 2 * geometry.num_hidden_layers * max(1, heads // engine.tensor_parallel_size) * size * number
    block = engine.block_size or _CPU_BLOCK
    return (-(-engine.max_model_len // block) + 1) * block * token


def memory_bytes() -> int:
    """Memory of this machine, or of the container that this process is in."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _LIMITS:
        try:
            limit = int(file.read_text())
        except (OSError, ValueError):  # no such hierarchy, or no limit
            continue
        found = min(found, limit)
    return found
