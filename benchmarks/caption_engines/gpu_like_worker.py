"""A worker of vLLM's that takes the time of a GPU and computes nothing: all of vLLM but the model is real, scheduler to detokenizer.

Named to vLLM by its own option `worker_cls`. A step launches for as long as kernels are launched one by one (a thread that gives the
interpreter up at each, as torch does) where somebody joins, or as one CUDA graph where nobody does; the device works meanwhile, and what
it needs beyond that is slept. The times are of the order of those that captioning_gpu.py's arms took for a 7 B model on an H200.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.worker.cpu_worker import CPUWorker

from benchmarks.caption_engines.recording import SLOWER
from reid_ray.caption.actors.engine_actor import GPU_SWITCH_S

GRAPH_LAUNCH_S, KERNELS_LAUNCH_S = 0.0015, 0.046
DECODE_S, DECODE_A_REQUEST_S = 0.0046, 0.000011  # of the device
JOIN_S = 0.0043  # of the device, a request with a picture
_OPERATION_S = 8e-6  # of torch's, on a tensor of a few numbers
_TOKENS = range(500, 1000)  # of the tokenizer's, made-up words


class GpuLikeWorker(CPUWorker):
    """Answers with some words, as many as a request asks for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sys.setswitchinterval(GPU_SWITCH_S)  # as an actor does whose pool has GPUs
        self._left: dict[str, int] = {}  # tokens of each request's prompt that are not read yet
        self._operand = torch.zeros(8)
        self._output: ModelRunnerOutput | None = None
        self._count, self._slower = 0, float(os.environ.get(SLOWER, "1"))

    def compile_or_warm_up_model(self) -> Any:
        """Nothing to compile."""
        from vllm.v1.worker.worker_base import CompilationTimes

        return CompilationTimes(0.0, 0.0)

    def execute_model(self, scheduler_output: Any) -> ModelRunnerOutput | None:
        """Take a step's time."""
        start = time.perf_counter()
        for name in scheduler_output.finished_req_ids:
            self._left.pop(name, None)
        new = scheduler_output.scheduled_new_reqs
        self._left.update({request.req_id: len(request.prompt_token_ids) - request.num_computed_tokens for request in new})
        names, words = list(scheduler_output.num_scheduled_tokens), []
        for name, tokens in scheduler_output.num_scheduled_tokens.items():
            self._left[name] -= tokens
            self._count += 1
            words.append([] if self._left[name] > 0 else [_TOKENS[self._count % len(_TOKENS)]])
        if names:
            for _ in range(int((KERNELS_LAUNCH_S if new else GRAPH_LAUNCH_S) / _OPERATION_S)):
                self._operand.add_(1)
            device_s = self._slower * (DECODE_S + DECODE_A_REQUEST_S * len(names) + JOIN_S * len(new))
            time.sleep(max(0.0, start + device_s - time.perf_counter()))
        output = ModelRunnerOutput(names, {name: place for place, name in enumerate(names)}, words)
        if not names:
            return output
        self._output = output
        return None

    def sample_tokens(self, grammar_output: Any) -> ModelRunnerOutput:
        """The words of the step."""
        assert self._output is not None
        return self._output
