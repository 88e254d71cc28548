"""The loop of a kill harness: one job after another, killed at random moments until a state folder tells of enough kills.

Knows when to kill, and the events that are appended to the folder as they happen, so that the same command goes on where it stopped;
not jobs, nodes or what is compared.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

EVENTS = "events.jsonl"
_LOOK_S = 0.05


class GaveUpError(Exception):
    """A job does not come to its end, however often it is started."""


class JobLife(Protocol):
    """One job from its first start to its end, over as many drivers as it takes."""

    name: str

    def start(self) -> None:
        """Start a driver."""

    def finished(self) -> bool:
        """Whether the job came to its end; starts a driver that failed again, or raises GaveUpError."""

    def kill(self, kind: str) -> bool:
        """End a process of this kind, if there is one."""

    def asked(self) -> int:
        """Questions put to engines so far."""

    def committed(self) -> int:
        """Batches on disk."""

    def stop(self) -> None:
        """End the driver if it runs."""

    def remove(self) -> None:
        """Remove what the job has written."""


@dataclass(frozen=True)
class KillLoop:
    """When a job is killed, by what, and when that is enough.

    Attributes:
        state: the harness's folder; a file named "enough" in it ends the killing too.
        kills: how many in all, those of earlier calls included.
        kinds: of processes.
        every_s: a kill comes at a random moment of so many seconds after the last.
        until: stops at this time (time.time()).
        weights: of the kinds, where they are drawn.
        in_turn: one kind after the other, each time when something new is on disk; else drawn at random, whatever has been done.
    """

    state: Path
    kills: int
    kinds: Sequence[str]
    every_s: float
    until: float
    weights: Sequence[float] | None = None
    in_turn: bool = False

    def run(
        self, named: str, *, begin: Callable[[str], JobLife], mend: Callable[[], None], compare: Callable[[str], dict[str, Any]]
    ) -> None:
        """Kill until it is enough, and see the last job to its end. A job that does not come to one is told of, and is the last.

        Args:
            named: what the names of jobs begin with.
            begin: the job of a name.
            mend: called before each kill: brings back what is gone.
            compare: what is told of the output of a finished job of this name.
        """
        job: JobLife | None = None
        try:
            name = self.unfinished() or _new_name(named)
            while name == self.unfinished() or not self.enough():
                job = begin(name)
                job.start()
                if not self._to_the_end(job, mend):
                    return
                append(self.state / EVENTS, event="end", job=job.name, asked=job.asked(), **compare(name))
                job.remove()
                job, name = None, _new_name(named)
        except GaveUpError as error:
            append(self.state / EVENTS, event="gave up", job="", said=str(error))
        finally:
            if job is not None:
                job.stop()

    def _to_the_end(self, job: JobLife, mend: Callable[[], None]) -> bool:
        """Kill a job's processes until it has come to its end; False if the time was up before."""
        blocks = 0
        while not self._waited(job, blocks):
            if time.time() > self.until:
                return False
            if not self.enough():
                mend()
                kind = self._next_kind()
                asked, blocks = job.asked(), job.committed()
                if job.kill(kind):
                    append(self.state / EVENTS, event="kill", job=job.name, kind=kind, asked=asked, blocks=blocks)
        return True

    def _waited(self, job: JobLife, blocks: int) -> bool:
        """Wait for the next kill's moment, or for the job's end: whether it came to that."""
        enough, moment = self.enough(), time.time() + random.uniform(0, self.every_s)
        while not job.finished():
            due = time.time() >= moment and (enough or not self.in_turn or job.committed() > blocks)
            if due or time.time() >= self.until:
                return job.finished()
            time.sleep(_LOOK_S)
        return True

    def _next_kind(self) -> str:
        return self.kinds[self._done() % len(self.kinds)] if self.in_turn else random.choices(self.kinds, self.weights)[0]

    def enough(self) -> bool:
        """Whether no more is to be killed."""
        return self._done() >= self.kills or (self.state / "enough").exists()

    def unfinished(self) -> str | None:
        """The job that was killed last, if it has not come to its end."""
        told = [event for event in read_events(self.state / EVENTS) if event["event"] in ("kill", "end")]
        return str(told[-1]["job"]) if told and told[-1]["event"] != "end" else None

    def _done(self) -> int:
        return sum(event["event"] == "kill" for event in read_events(self.state / EVENTS))


def _new_name(named: str) -> str:
    return f"{named}-{time.time_ns()}"


def append(events: Path, **event: Any) -> None:
    """Tell of an event, on the terminal too."""
    event["time"] = time.strftime("%H:%M:%S")
    print(json.dumps(event), flush=True)
    with events.open("a") as file:
        file.write(json.dumps(event) + "\n")


def read_events(events: Path) -> list[dict[str, Any]]:
    """All that were told of; none where there is no file."""
    return [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
