"""A GPU engine's batch as its scheduler fills it, step by step: vLLM's rules without a model and without a clock.

A step has room for so many requests and so many tokens. Those that write take a token each, first; then prompts are read, the oldest
first, a long one over several steps; whoever waits comes in while there is room. A prompt read to its end gives the first token of its
answer in the same step. Knows counts alone: no pictures, no texts, no key-value cache, no time.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What an engine is asked: the tokens it reads, and the tokens it will write."""

    name: str
    prompt_tokens: int
    answer_tokens: int


class ContinuousBatch:
    """Requests in an engine.

    Args:
        max_num_seqs: requests in a step.
        tokens_a_step: tokens in a step, those read and those written.
    """

    def __init__(self, *, max_num_seqs: int, tokens_a_step: int) -> None:
        if tokens_a_step < max_num_seqs:
            raise ValueError(f"{tokens_a_step} tokens a step leave no token for each of {max_num_seqs} requests")
        self._most, self._tokens = max_num_seqs, tokens_a_step
        self.steps = 0
        self.size = 0  # requests that the last step worked on
        self._waiting: deque[Request] = deque()
        self._read: dict[str, int] = {}  # name -> tokens of the prompt that are yet to be read, the oldest first
        self._asked: dict[str, Request] = {}  # those in the batch
        self._writing = 0
        self._ends: dict[int, list[str]] = defaultdict(list)  # step -> answers that end with it

    @property
    def waiting(self) -> int:
        """Requests that the batch had no room for."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """Requests in the batch and waiting."""
        return len(self._asked) + len(self._waiting)

    def add(self, request: Request) -> None:
        """Put a request at the end of the queue."""
        self._waiting.append(request)

    def abort(self, names: Iterable[str]) -> None:
        """Take requests out, wherever they are; those that have ended are none of them."""
        gone = set(names)
        self._waiting = deque(request for request in self._waiting if request.name not in gone)
        for name in gone & set(self._asked):
            self._asked.pop(name)
            if self._read.pop(name, None) is None:
                self._writing -= 1
        for ends in self._ends.values():
            ends[:] = [name for name in ends if name not in gone]

    def step(self) -> list[str]:
        """Run one step; returns the names of the answers that ended with it."""
        self.steps += 1
        self.size, room = self._writing, self._tokens - self._writing
        for name in list(self._read):
            room = self._read_on(name, room)
        while room and self._waiting and len(self._asked) < self._most:
            request = self._waiting.popleft()
            self._asked[request.name], self._read[request.name] = request, request.prompt_tokens
            room = self._read_on(request.name, room)
        ended = self._ends.pop(self.steps, [])
        for name in ended:
            del self._asked[name]
        self._writing -= len(ended)
        return ended

    def _read_on(self, name: str, room: int) -> int:
        """Read of a prompt what there is room for; returns the room that is left."""
        taken = min(room, self._read[name])
        if not taken:
            return room
        self.size += 1
        self._read[name] -= taken
        if not self._read[name]:
            del self._read[name]
            self._writing += 1
            self._ends[self.steps + self._asked[name].answer_tokens - 1].append(name)
        return room - taken


def steps_at_best(requests: Sequence[Request], *, max_num_seqs: int, tokens_a_step: int) -> int:
    """Steps of an engine that is given all requests at once."""
    batch = ContinuousBatch(max_num_seqs=max_num_seqs, tokens_a_step=tokens_a_step)
    for request in requests:
        batch.add(request)
    while batch.unfinished:
        batch.step()
    return batch.steps
