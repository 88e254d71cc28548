"""Ray Data execution options and timeouts: in order, quiet, and never waiting for ever.

Knows Ray Data's execution options; not what flows through.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reid_ray.config.common import PoolConfig


@contextmanager
def ray_data_execution(*, no_progress_timeout_s: int, in_order: bool = True) -> Iterator[None]:
    """Datasets built and run inside keep their rows in the source's order and show no bar of their own.

    Args:
        in_order: False where the order is made later: then no block waits for a slower one before it.
        no_progress_timeout_s: a pipeline in which nothing moves for so long (actors that the cluster cannot place, say) is an
            error that names the starved operators instead of an endless wait.
    """
    from ray.data import DataContext

    context = DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = (context.execution_options.preserve_order, context.execution_no_progress_timeout_s, context.enable_progress_bars)
    original, level = context.raise_original_map_exception, logger.level
    context.execution_options.preserve_order = in_order
    context.execution_no_progress_timeout_s = no_progress_timeout_s
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # Ray Data's own wrapping loses its cause on the way to the driver
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # max_restarts and max_task_retries (see actor_pool) have no named parameter in the Ray that is pinned.
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            yield
    finally:
        context.execution_options.preserve_order, context.execution_no_progress_timeout_s = before[:2]
        context.enable_progress_bars = before[2]
        context.raise_original_map_exception = original
        logger.setLevel(level)


def actor_pool(pool: PoolConfig, *, restarts: int = 3, calls: int = 1) -> dict[str, Any]:
    """Keyword arguments of `Dataset.map_batches` that run a class in a pool of actors.

    Args:
        pool: size and resources.
        restarts: how often an actor that dies is restarted and its block retried; without a bound (-1), a row that kills its actor
            is retried for ever, so the class must see to that.
        calls: how many threads call an actor at once; more than one need a class that bears it.
    """
    from ray.data import ActorPoolStrategy

    size = {"size": pool.replicas} if pool.max_replicas is None else {"min_size": pool.replicas, "max_size": pool.max_replicas}
    if calls > 1:
        size |= {"max_concurrent_calls_per_actor": calls, "max_tasks_in_flight_per_actor": calls + 2, "enable_true_multi_threading": True}
    return {
        "compute": ActorPoolStrategy(**size),
        "batch_size": pool.batch_size,
        "batch_format": "pyarrow",
        "num_cpus": pool.num_cpus,
        "num_gpus": pool.num_gpus,
        "max_restarts": restarts,
        "max_task_retries": restarts,
    }
