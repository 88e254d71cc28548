"""Work stream: runs works, generators that ask an engine, for many calls of an actor at once, as many together as the engine takes.

Knows generators, an engine loop, a scoring loop and the gate before them; not what a work is about. A call's own thread decodes, cleans
and advances its works; the engine runs on meanwhile in another.
"""

from __future__ import annotations

import os
import queue
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from reid_ray.caption.streaming.admission import FREE, Admission, Group
from reid_ray.caption.streaming.engine_loop import EXIT_CODE, EngineLoop, Request
from reid_ray.caption.streaming.in_flight import InFlightRecord
from reid_ray.caption.streaming.pass_account import ActorAccount
from reid_ray.caption.streaming.scoring_loop import PairToScore, ScoringLoop
from reid_ray.caption.streaming.stage_clock import DECODE, SCORES, STORAGE
from reid_ray.errors import ReidRayError, reason_of
from reid_ray.redaction import without_texts

_LOOK_AGAIN_S = 0.1  # how soon a call looks again that was told of no room, for whoever was told may not have used it
_LONGEST_TURN_S = 0.5  # in which rows enter: an engine that waits for longer, with requests of its own, would be taken to hang

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Work:
    """One row's work.

    name: of the row.
    converse: makes its generator, which yields requests or pairs to score, is sent their answers, and returns rows.
    texts: private, not to be quoted by an error's message.
    group: that it is isolated with.
    """

    name: str
    converse: Callable[[], Generator[Any, Any, Rows]]
    texts: Sequence[str] = ()
    group: Group = FREE


@dataclass
class _Running:
    work: Work
    steps: Generator[Any, Any, Rows]
    answers: list[Any] = field(default_factory=list)
    awaited: int = 0
    held: int = 0  # bytes of what it asks just now


@dataclass
class _Call:
    """One call's works.

    done: told of each that is finished.
    name: tells calls apart.
    lines: those not let in yet, group by group.
    inbox: answers to those that run; None: there may be room.
    """

    done: Callable[[Work, Rows], None]
    name: object = field(default_factory=object)
    lines: dict[Group, deque[Work]] = field(default_factory=lambda: defaultdict(deque))
    running: dict[str, _Running] = field(default_factory=dict)
    inbox: queue.SimpleQueue[tuple[_Running, int, Any] | None] = field(default_factory=queue.SimpleQueue)

    @property
    def waits(self) -> bool:
        """Whether any is not let in yet."""
        return any(self.lines.values())


class WorkStream:
    """Runs works over one engine; `run` may be called from many threads at once.

    Args:
        loop: drives the engine.
        scoring: scores pairs; None where no work has any.
        gate: lets works in.
        record: told which rows are with the engine.
        flush: makes durable what is finished; called before a suspect goes to the engine.
        explain: told the reason before this process ends itself, because a work raised what no library should.
    """

    def __init__(
        self,
        loop: EngineLoop,
        scoring: ScoringLoop | None,
        *,
        gate: Admission,
        record: InFlightRecord,
        flush: Callable[[], None],
        explain: Callable[[str], None],
    ) -> None:
        self._loop, self._scoring, self._gate, self._record = loop, scoring, gate, record
        self._flush, self._explain = flush, explain

    def run(self, works: Sequence[Work], done: Callable[[Work, Rows], None]) -> None:
        """Run works to their ends.

        Args:
            works: of one call.
            done: called with each work and its rows, as they are finished, before anything takes the work's place.

        Raises:
            ReidRayError: the engine is lost for good.
        """
        call = _Call(done)
        for work in works:
            call.lines[work.group].append(work)
            self._gate.announce(work.group, 1, call.name)
        try:
            with self._gate.listening(lambda: call.inbox.put(None), call.name):
                while call.waits:
                    with self._loop.turn():  # one for all that may enter: with a step after each, an engine would be slow to fill
                        self._enter_all(call)
                    self._take_answer(call)
            while call.running:
                self._take_answer(call)
        finally:
            for group, line in call.lines.items():
                self._gate.withdraw(group, len(line), call.name)

    def _enter_all(self, call: _Call) -> None:
        until = time.monotonic() + _LONGEST_TURN_S
        for group, line in call.lines.items():
            while line and self._gate.try_enter(group, call.name):
                self._enter(call, line.popleft())
                if time.monotonic() > until:
                    call.inbox.put(None)  # the others in the next turn, soon
                    return

    def _enter(self, call: _Call, work: Work) -> None:
        if work.group != FREE:  # what was finished beside it must not be lost with it
            with self._loop.clock.at(STORAGE):
                self._flush()
        self._record.enter(work.name)
        call.running[work.name] = _Running(work, work.converse())
        self._advance(call, call.running[work.name], None)

    def _take_answer(self, call: _Call) -> None:
        """Wait for an answer, or for room, and go on with the work that it is for."""
        try:
            said = call.inbox.get(timeout=_LOOK_AGAIN_S)
        except queue.Empty:
            return
        if said is None:
            return
        task, place, answer = said
        if isinstance(answer, ReidRayError):
            raise answer
        task.answers[place] = answer
        task.awaited -= 1
        if not task.awaited:
            with self._loop.turn():
                self._advance(call, task, task.answers)

    def _advance(self, call: _Call, task: _Running, answers: list[Any] | None) -> None:
        """Send a work its answers and queue what it asks next, or hand on its rows if it is at its end."""
        with self._loop.clock.at(DECODE):
            self._advance_it(call, task, answers)

    def _advance_it(self, call: _Call, task: _Running, answers: list[Any] | None) -> None:
        try:
            asked = next(task.steps) if answers is None else task.steps.send(answers)
        except StopIteration as end:
            del call.running[task.work.name]
            self._record.leave(task.work.name)
            call.done(task.work, end.value)
            self._gate.leave(task.held, call.name, takes_the_place=call.waits)
            return
        except ReidRayError:
            raise
        except Exception as error:  # noqa: BLE001
            self.die(error, task.work.texts)
        task.answers, task.awaited = [None] * len(asked), len(asked)
        held = 0
        for place, ask in enumerate(asked):

            def answer(said: Any, place: int = place) -> None:
                call.inbox.put((task, place, said))

            def scored(said: float, answer: Callable[[Any], None] = answer) -> None:
                self._loop.clock.end(SCORES)
                answer(said)

            if isinstance(ask, PairToScore):
                assert self._scoring is not None
                self._loop.clock.begin(SCORES)
                self._scoring.ask(ask, scored)
            else:
                assert isinstance(ask, Request)
                held += self._loop.ask(ask, answer)
        self._gate.hold(held - task.held)
        task.held = held

    def account(self) -> ActorAccount:
        """What this actor has done, and what is with it."""
        load, tokens = self._loop.load(), self._loop.tokens
        return ActorAccount(
            self._loop.clock.seconds(),
            self._loop.request_seconds,
            tokens["prompt"],
            tokens["cached"],
            tokens["written"],
            load.running,
            load.waiting + self._gate.waiting,
            load.cache_use,
        )

    def die(self, error: Exception, texts: Sequence[str]) -> NoReturn:
        """End this process: what raised is in no known state."""
        self._explain(without_texts(reason_of(error), texts))
        os._exit(EXIT_CODE)
