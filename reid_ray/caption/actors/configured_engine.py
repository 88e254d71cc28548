"""Configured engine: the vLLM engine that a section of a configuration asks for, and how many calls of an actor keep it fed."""

from __future__ import annotations

from reid_ray.caption.config import CaptionerConfig, RewriterConfig
from reid_ray.caption.engines.vllm_engine import Engine
from reid_ray.model.model_files import resolve_model

_MOST_CALLS = 32


def calls_at_once(config: CaptionerConfig | RewriterConfig) -> int:
    """Calls of an actor that keep its engine fed: those that prepare, and thrice the requests that it decodes together in others.

    A call lasts as long as its slowest answer, and until it is over it brings no further rows. Calls are threads, so not too many.
    """
    if isinstance(config, CaptionerConfig):
        requests = config.pool.batch_size * len(config.instructions)
    else:
        requests = max(1, int(config.pool.batch_size * config.share * config.count))
    return min(_MOST_CALLS, calls_that_prepare(config) + -(-3 * config.engine.max_num_seqs // requests))


def calls_that_prepare(config: CaptionerConfig | RewriterConfig) -> int:
    """Calls of an actor that decode and prepare by turns, each one row at a time: as many as there are processors or processes for it."""
    return max(1, int(config.pool.num_cpus), config.engine.prepare_processes)


def has_one_core(config: CaptionerConfig | RewriterConfig) -> bool:
    """Whether an actor's engine computes on the core that also prepares for it, and has no other."""
    pool, engine = config.pool, config.engine
    return not pool.num_gpus and pool.num_cpus <= 1 and not engine.has_processes and not engine.prepare_processes


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
