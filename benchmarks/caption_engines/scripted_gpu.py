"""A chat engine that takes the time of a GPU and no more of the machine: scripted answers, after steps that sleep.

Every step takes as long, whatever it works on, and sleeps outside the interpreter's lock, as a step on a GPU waits. What a step has
room for is continuous_batch.py's; how long an answer is follows from its request's name, and so does its text. Pictures are looked at
for their size alone: it says how many tokens a Qwen2.5-VL would read of them.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.caption_engines.answer_lengths import answer_tokens
from benchmarks.caption_engines.continuous_batch import ContinuousBatch, Request, steps_at_best
from benchmarks.caption_engines.step_log import EngineLog, StepLog
from reid_ray.caption.actors.engine_actor import GPU_SWITCH_S
from reid_ray.caption.engines.protocol import Conversation, Reply, converse

COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "pink")
_PIXELS_A_TOKEN = 28  # of a side, in Qwen2-VL and Qwen2.5-VL
_LETTERS_A_TOKEN = 4


@dataclass(frozen=True)
class GpuLike:
    """What the engine's device and scheduler do in a step. The defaults are of the order of a 7 B model on one large GPU."""

    step_s: float = 0.02
    max_num_seqs: int = 128
    tokens_a_step: int = 8192

    def batch(self) -> ContinuousBatch:
        """An empty batch."""
        return ContinuousBatch(max_num_seqs=self.max_num_seqs, tokens_a_step=self.tokens_a_step)

    def best_s(self, requests: Sequence[Request]) -> float:
        """Seconds of an engine that is given all of them at once."""
        return self.step_s * steps_at_best(requests, max_num_seqs=self.max_num_seqs, tokens_a_step=self.tokens_a_step)


class ScriptedGpu:
    """The engine, in the process that calls it.

    Args:
        logs: folder of the step logs; None writes none.
        gpu: what a step takes and has room for.
    """

    def __init__(self, logs: Path | None, gpu: GpuLike) -> None:
        self._gpu, self._batch, self._log = gpu, gpu.batch(), None if logs is None else StepLog(logs)
        self._replies: dict[str, Reply] = {}

    @property
    def capacity(self) -> int:
        """Requests in a step."""
        return self._gpu.max_num_seqs

    def prepare(self, conversation: Conversation, key: str) -> tuple[int, Reply]:
        """The prompt's tokens, and the reply that will come."""
        read, written = _prompt_tokens(conversation), answer_tokens(key.encode())
        return read, Reply(caption_of(key), tokens=written, prompt_tokens=read)

    def add(self, request: str, prepared: tuple[int, Reply]) -> None:
        """Take a request in."""
        read, reply = prepared
        self._replies[request] = reply
        if self._log is not None:
            self._log.request(f"{read}+{reply.tokens}+{request.replace(' ', '_')}")
        self._batch.add(Request(request, read, reply.tokens))

    def step(self) -> list[tuple[str, Reply]]:
        """One step; what ended with it."""
        start = time.time()
        ended = self._batch.step()
        time.sleep(max(0.0, start + self._gpu.step_s - time.time()))
        if self._log is not None:
            self._log.step(start, running=self._batch.size, waiting=self._batch.waiting)
        return [(name, self._replies.pop(name)) for name in ended]

    def abort(self, requests: Sequence[str]) -> None:
        """Forget requests."""
        self._batch.abort(requests)
        for name in requests:
            self._replies.pop(name, None)

    def chat(self, conversations: Sequence[Conversation], keys: Sequence[str]) -> list[Reply]:
        """One reply per conversation, in order; returns when the last answer ends."""
        return converse(self, conversations, keys)


def _in_actor(logs: Path, gpu: GpuLike) -> ScriptedGpu:
    sys.setswitchinterval(GPU_SWITCH_S)  # as an actor does whose pool has GPUs
    return ScriptedGpu(logs, gpu)


class ScriptedGpuToBe:
    """Pickles as a ScriptedGpu that has yet to start: in the actor that will hold it."""

    def __init__(self, logs: Path, gpu: GpuLike) -> None:
        self._arguments = (logs, gpu)

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_actor, self._arguments

    def chat(self, conversations: Sequence[Conversation], keys: Sequence[str]) -> list[Reply]:
        """Never asked: a copy is, elsewhere."""
        raise NotImplementedError


def logged_requests(log: EngineLog) -> list[Request]:
    """The requests of a log that a ScriptedGpu wrote, as they came."""
    found = []
    for _, name in log.requests:
        prompt, answer, _ = name.split("+", 2)
        found.append(Request(name, int(prompt), int(answer)))
    return found


def caption_of(key: str) -> str:
    """A caption that depends on the request's name alone."""
    drawn = hashlib.sha256(key.encode()).digest()
    return f"A man in a {COLOURS[drawn[0] % 8]} coat and {COLOURS[drawn[1] % 8]} shoes."


def _prompt_tokens(conversation: Conversation) -> int:
    tokens = 0
    for message in conversation:
        parts: list[dict[str, Any]] = [{"text": message["content"]}] if isinstance(message["content"], str) else message["content"]
        for part in parts:
            if "image_pil" in part:
                width, height = part["image_pil"].size
                tokens += -(-width // _PIXELS_A_TOKEN) * -(-height // _PIXELS_A_TOKEN)
            else:
                tokens += -(-len(part["text"]) // _LETTERS_A_TOKEN)
    return tokens
