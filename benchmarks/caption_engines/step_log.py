"""What an engine did, step by step, in a file of its process's own: written by the process that steps, read when all is over.

Knows times and counts; not engines. Times are seconds since the epoch, so that processes can be compared.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One step of an engine."""

    start: float
    end: float
    running: int  # requests that the step worked on
    waiting: int  # requests in the engine that it did not
    cpu_s: float  # of the engine's process, so far
    joined: int = 0  # of those that the step worked on, the new ones


@dataclass(frozen=True)
class EngineLog:
    """What one process has logged: when each request came, with its name, and the steps."""

    requests: list[tuple[float, str]]
    steps: list[Step]

    @property
    def first(self) -> float:
        """When the first request came."""
        return self.requests[0][0]

    @property
    def end(self) -> float:
        """When the last step ended."""
        return self.steps[-1].end

    @property
    def stepping_s(self) -> float:
        """Seconds within steps."""
        return sum(step.end - step.start for step in self.steps)


class StepLog:
    """Writes the log of this process. A line is whole or absent, even if the process is killed.

    Args:
        folder: of all processes' logs; there already.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"{os.getpid()}.steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._requests = ""  # since the last step: a write gives the interpreter to another thread, which the engine would not do

    def request(self, name: str) -> None:
        """A request has come; its name holds no space."""
        self._requests += f"request {time.time()!r} {name}\n"

    def step(self, start: float, *, running: int, waiting: int, joined: int = 0) -> None:
        """A step ends now."""
        step = f"step {start!r} {time.time()!r} {running} {waiting} {time.process_time()!r} {joined}\n"
        os.write(self._file, f"{self._requests}{step}".encode())
        self._requests = ""


def read_logs(folder: Path) -> list[EngineLog]:
    """The logs of all processes that were asked anything, in the order of their first requests."""
    logs = [_read(path) for path in folder.glob("*.steps")]
    return sorted((log for log in logs if log.requests and log.steps), key=lambda log: log.first)


def running_a_step(logs: Sequence[EngineLog]) -> float:
    """Requests that a step worked on, on average over all steps."""
    sizes = [step.running for log in logs for step in log.steps]
    return sum(sizes) / len(sizes)


def in_full_swing(logs: Sequence[EngineLog]) -> float:
    """Requests a second that joined, from the step at which a quarter of them had until one at which nearly all had; 0 if there is no such.

    What engines compile for the first requests and for the last ones is left out, and that the last ones leave the engines half empty.
    """
    joining = sorted((step.end, step.joined) for log in logs for step in log.steps if step.joined)
    so_far = list(itertools.accumulate(joined for _, joined in joining))
    within = [(end, count) for (end, _), count in zip(joining, so_far, strict=True) if 0.25 * so_far[-1] <= count <= 0.97 * so_far[-1]]
    if len(within) < 2:
        return 0.0
    (began, before), (ended, after) = within[0], within[-1]
    return (after - before) / (ended - began)


def joined_and_not(logs: Sequence[EngineLog]) -> dict[str, float]:
    """How many steps somebody joined, and the median milliseconds of those and of the others (0 where there is none)."""
    joined, others = (
        [step.end - step.start for log in logs for step in log.steps if bool(step.joined) == is_one] for is_one in (True, False)
    )
    ms = {name: statistics.median(seconds) * 1e3 if seconds else 0.0 for name, seconds in (("joined", joined), ("other", others))}
    return {"joined_steps": len(joined), "ms_of_a_joined_step": ms["joined"], "ms_of_another": ms["other"]}


def _read(path: Path) -> EngineLog:
    requests, steps = [], []
    for line in path.read_text(encoding="ascii").splitlines():
        match line.split():
            case ["request", when, name]:
                requests.append((float(when), name))
            case ["step", start, end, running, waiting, cpu, joined]:
                steps.append(Step(float(start), float(end), int(running), int(waiting), float(cpu), int(joined)))
    return EngineLog(requests, steps)
