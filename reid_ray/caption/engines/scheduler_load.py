"""What vLLM's scheduler says of its load where it runs in a process of its own: it comes along with what each step gives.

Knows vLLM's engine by its attributes; imports nothing of it.
"""

from __future__ import annotations

from typing import Any

from reid_ray.caption.engines.protocol import EngineLoad


class SchedulerLoad:
    """The load after the last step.

    Args:
        engine: vLLM's LLMEngine, started with its statistics on. From now on its scheduler's alone are kept: those of each request, and
            the tables of them, take longer than what is wanted here.

    Attributes:
        last: requests that run and wait, and the share of the key-value cache in use.
    """

    def __init__(self, engine: Any) -> None:
        self.last = EngineLoad(0, 0, 0.0)
        processor = engine.output_processor
        engine.log_stats = processor.log_stats = processor.lora_states.log_stats = False
        engine.logger_manager = None
        processor.update_scheduler_stats = self._told

    def _told(self, stats: Any) -> None:
        if stats is not None:
            self.last = EngineLoad(stats.num_running_reqs, stats.num_waiting_reqs + stats.num_skipped_waiting_reqs, stats.kv_cache_usage)
