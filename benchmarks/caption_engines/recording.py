"""How engines of a benchmark are told to log: an option of vLLM's, and two environment variables that its processes inherit.

Apart from the scheduler itself, because an arm names it before it may import vLLM.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

SCHEDULER = "benchmarks.caption_engines.recorded_scheduler.RecordedScheduler"
ASYNC_SCHEDULER = "benchmarks.caption_engines.recorded_scheduler.RecordedAsyncScheduler"
LOGS, CORE = "CAPTION_BENCHMARK_LOGS", "CAPTION_BENCHMARK_CORE"


def record_engines(environment: MutableMapping[str, str], *, logs: Path, core: int | None) -> None:
    """Tell engines of processes with this environment where to log, if `scheduler_cls` is one of these, and on which core to run."""
    environment[LOGS] = str(logs)
    if core is not None:
        environment[CORE] = str(core)
