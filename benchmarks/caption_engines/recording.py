"""How engines of a benchmark are told to log: an option of vLLM's, and two environment variables that its processes inherit.

Apart from the scheduler itself, because an arm names it before it may import vLLM.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

SCHEDULER = "benchmarks.caption_engines.recorded_scheduler.RecordedScheduler"
ASYNC_SCHEDULER = "benchmarks.caption_engines.recorded_scheduler.RecordedAsyncScheduler"
GPU_LIKE_WORKER = "benchmarks.caption_engines.gpu_like_worker.GpuLikeWorker"
SLOWER = "CAPTION_BENCHMARK_GPU_SLOWER"  # environment variable of that worker: by what its device is slower
LOGS, CORE, AS_ASKED = "CAPTION_BENCHMARK_LOGS", "CAPTION_BENCHMARK_CORE", "CAPTION_BENCHMARK_LENGTHS_AS_ASKED"


def record_engines(environment: MutableMapping[str, str], *, logs: Path, core: int | None, as_asked: bool = False) -> None:
    """Tell engines of processes with this environment where to log, if `scheduler_cls` is one of these, and on which core to run.

    Args:
        environment: to be added to.
        logs: folder of the logs.
        core: None leaves the engine where the system puts it.
        as_asked: answers stay as long as a request asks for, as of vLLM's own benchmark.
    """
    environment[LOGS] = str(logs)
    if as_asked:
        environment[AS_ASKED] = "1"
    if core is not None:
        environment[CORE] = str(core)
