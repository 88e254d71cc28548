"""Configured engine: the vLLM engine that a section of a configuration asks for, and how many calls of an actor keep it fed."""

from __future__ import annotations

from reid_ray.caption.config import CaptionerConfig, RewriterConfig
from reid_ray.caption.engines.vllm_engine import Engine
from reid_ray.model.model_files import resolve_model

_MOST_CALLS = 32


def calls_at_once(config: CaptionerConfig | RewriterConfig) -> int:
    """Calls of an actor that keep its engine fed: thrice the requests that it decodes together, in batches; threads, so not too many.

    A call lasts as long as its slowest answer, and has one process prepare at a time.
    """
    if isinstance(config, CaptionerConfig):
        requests = config.pool.batch_size * len(config.instructions)
    else:
        requests = max(1, int(config.pool.batch_size * config.share * config.count))
    return min(_MOST_CALLS, max(config.engine.prepare_processes, 1 + -(-3 * config.engine.max_num_seqs // requests)))


def start_engine(config: CaptionerConfig | RewriterConfig, *, images: int, field: str) -> Engine:
    """The vLLM engine of a section, in this process; `images` and `field` as of Engine."""
    return Engine(
        resolve_model(config.model, field=f"{field}.model"),
        revision=config.revision,
        config=config.engine,
        sampling=config.sampling,
        images=images,
        pool=config.pool,
        adapter=config.adapter,
        field=field,
    )
