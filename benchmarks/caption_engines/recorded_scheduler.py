"""vLLM's schedulers, with three things added that no program above them sees: answers as long as a captioner's, a log, and one core.

Named to vLLM by its own option `scheduler_cls`, so one is in every engine alike, whoever drives it: LLM in one process, the caption
job's actor, Ray Data LLM's AsyncLLM with its child process. They read two environment variables, set by recording.py, and pin the
process that holds the engine, where a core is named. A request's min_tokens and max_tokens become what answer_tokens says of its picture,
as the model gets it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from benchmarks.caption_engines.answer_lengths import answer_tokens
from benchmarks.caption_engines.recording import AS_ASKED, CORE, LOGS
from benchmarks.caption_engines.step_log import StepLog


class RecordedScheduler(Scheduler):
    """vLLM's synchronous scheduler, which it takes on CPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.scheduler_config.async_scheduling:
            raise ValueError("this engine would take vLLM's asynchronous scheduler; the one that logs is synchronous")
        self._log = StepLog(Path(os.environ[LOGS]))
        self._started = 0.0
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {int(os.environ[CORE])})

    def add_request(self, request: Any) -> None:
        """Take a request in, with a length of its own."""
        self._log.request(_with_length(request))
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Begin a step."""
        self._started = time.time()
        return super().schedule(*args, **kwargs)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """End it."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        if scheduler_output.total_num_scheduled_tokens:
            running = len(scheduler_output.num_scheduled_tokens)
            self._log.step(self._started, running=running, waiting=len(self.waiting), joined=len(scheduler_output.scheduled_new_reqs))
        return outputs


class RecordedAsyncScheduler(AsyncScheduler):
    """vLLM's asynchronous scheduler, which it takes on GPUs: a step is scheduled while the one before runs, so it lasts from end to end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._log = StepLog(Path(os.environ[LOGS]))
        self._ended = 0.0

    def add_request(self, request: Any) -> None:
        """Take a request in, with a length of its own."""
        self._log.request(_with_length(request))
        super().add_request(request)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """End a step."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        if scheduler_output.total_num_scheduled_tokens:
            now = time.time()
            running, joined = len(scheduler_output.num_scheduled_tokens), len(scheduler_output.scheduled_new_reqs)
            self._log.step(self._ended or now, running=running, waiting=len(self.waiting), joined=joined)
            self._ended = now
        return outputs


def _with_length(request: Any) -> str:
    """Give a request the length of its answer; returns its name."""
    name = str(request.request_id.replace(" ", "_"))
    if AS_ASKED in os.environ:
        return name
    tokens = answer_tokens(_picture(request))
    request.sampling_params = request.sampling_params.clone()
    request.sampling_params.min_tokens = request.sampling_params.max_tokens = request.max_tokens = tokens
    return name


def _picture(request: Any) -> bytes:
    """The pixels of a request's picture, as the model gets them."""
    (feature,) = request.mm_features
    return bytes(feature.data["pixel_values"].data.contiguous().cpu().float().numpy().tobytes())
