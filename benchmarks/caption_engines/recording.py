"""How engines of a benchmark are told to log: an option of vLLM's, and two environment variables that its processes inherit.

Apart from the scheduler itself, because an arm names it before it may import vLLM.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

SCHEDULER = "benchmarks.caption_engines.recorded_scheduler.RecordedScheduler"
LOGS, CORE = "CAPTION_BENCHMARK_LOGS", "CAPTION_BENCHMARK_CORE"


def record_engines(environment: MutableMapping[str, str], *, logs: Path, core: int) -> None:
    """Tell engines of processes with this environment where to log, and on which core to run, if `scheduler_cls` is SCHEDULER."""
    environment.update({LOGS: str(logs), CORE: str(core)})
