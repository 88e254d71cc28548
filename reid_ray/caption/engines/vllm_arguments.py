"""The configuration of an engine and of its answers in vLLM's own words.

Knows names of arguments; imports and starts nothing.
"""

from __future__ import annotations

from typing import Any

from reid_ray.caption.config import SamplingConfig, StructureConfig, VllmConfig
from reid_ray.config.common import PoolConfig


def engine_arguments(config: VllmConfig, images: int) -> dict[str, Any]:
    """VllmConfig in vLLM's own words."""
    arguments: dict[str, Any] = {
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enforce_eager": config.enforce_eager,
        "trust_remote_code": config.trust_remote_code,
        "enable_prefix_caching": config.enable_prefix_caching,
    }
    if config.block_size is not None:
        arguments["block_size"] = config.block_size
    if config.tensor_parallel_size > 1:
        arguments["distributed_executor_backend"] = "mp"  # inside a Ray actor vLLM would ask Ray for more GPUs
    if images:
        arguments |= {"limit_mm_per_prompt": {"image": images}, "mm_processor_cache_gb": 0}  # each picture is seen once or twice
    return arguments


def structure_fields(structure: StructureConfig) -> dict[str, Any]:
    """The one field that is set, in vLLM's words."""
    values = structure.model_dump(exclude_none=True)
    return {"json" if name == "json_schema" else name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def structure_arguments(sampling: SamplingConfig) -> dict[str, Any]:
    """Of the engine, for answers that have a structure."""
    # Without this a small model may fill its tokens with the whitespace that JSON allows anywhere.
    if sampling.structure is None or sampling.structure.json_schema is None:
        return {}
    return {"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}}


def seeded_arguments(sampling: SamplingConfig, pool: PoolConfig) -> dict[str, Any]:
    """Of the engine, for answers that are drawn."""
    # vLLM rewinds a request's random stream after each piece of a prompt that it splits over steps, which streams on CPUs cannot be.
    if sampling.temperature and not pool.num_gpus:
        return {"enable_chunked_prefill": False}
    return {}
