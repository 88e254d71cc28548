"""Attempt board of one pass: which rows each actor holds, who died with what in its engine, and what follows from a death.

Knows names of rows and actors, and deaths; not what rows are, nor engines. It lives in a process that outlives the actors, that of the
driver or a Ray actor beside it, and ends with the pass; no file of it is left.

Ray starts an actor that dies again, under the same id, and hands it the same rows, for ever if one of them is what kills it. So an actor
that begins says what was with its engine when it died last (from the in-flight record of its node; on another node, all that it held).
Those rows are suspects. They are divided into isolation groups, an eighth of them each, and so on down to single rows: a group is with the
engine alone, so that the next death incriminates it alone. A row that dies alone, twice, is given up with the reason; once, if an earlier
run gave it up already. Its neighbours are made as if it were not there.

A row is blamed for its second death only if the engine made another between the two (so it comes after a row under no suspicion), or if
another actor's engine has died of it, too. Deaths belong to an actor. One that dies time and again without making anything, while others
of its pool make rows, is broken, not its rows: it takes no more, and its rows are handed back, for others, when those have nothing left.
The device of a broken actor is known to the run's later rounds: an actor there stands aside while others work. If no actor makes
anything, the engine itself does not work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from reid_ray.caption.streaming.admission import Group
from reid_ray.caption.streaming.pass_account import ActorAccount, PassAccount, PassFacts
from reid_ray.errors import EngineDownError

_DEATHS_ALONE = 2
_PARTS = 8  # that suspects are divided into
_BROKEN_AFTER = 4  # deaths without a row made, while others make some
_DOWN_AFTER = 8  # deaths without a row made, where nobody makes any
_GIVEN_UP_IN_A_ROW = 16  # rows, with none made between: then the engine is at fault, not the rows
_IDLE_S = 30.0  # that nobody holds rows, after which none are to come
_IDLE_THROUGH_S = 3.0  # and where all that was to be read has been read
_ALONE_S = 60.0  # that an actor whose device was broken waits for others to begin
_NO_WORD = "the process died without a word (killed, out of memory or crashed)"


@dataclass(frozen=True)
class Start:
    """What an actor is told when it begins.

    again: it was there before and died.
    broken: why it is to take no rows; None if it may.
    """

    again: bool = False
    broken: str | None = None


@dataclass(frozen=True)
class Suspicion:
    """What is known of rows that an actor takes: the groups of suspects, and why others are given up."""

    groups: dict[str, Group]
    given_up: dict[str, str]


class Rest(Enum):
    """What an actor that is to take no rows does now."""

    WAIT = "wait"  # others work
    WORK = "work"  # there are no others
    HAND_BACK = "hand back"  # others have nothing left


@dataclass(frozen=True)
class Lessons:
    """What a round tells the next ones of the run.

    broken: actor -> why it was broken.
    devices: device of a broken actor -> why.
    unconfirmed: row that ended an engine alone, twice, on a device that made nothing between -> that device.
    """

    broken: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    unconfirmed: Mapping[str, str | None] = field(default_factory=dict)


def all_of(past: Lessons, told: Sequence[Lessons]) -> Lessons:
    """What a run knows after a round.

    Args:
        past: what it knew when the round began.
        told: by the boards of that round.
    """
    cleared = {device for device in past.devices if any(device not in each.devices for each in told)}
    devices = {device: why for lessons in (past, *told) for device, why in lessons.devices.items()}
    return Lessons(
        {},
        {device: why for device, why in devices.items() if device not in cleared},
        {row: device for lessons in (past, *told) for row, device in lessons.unconfirmed.items()},
    )


@dataclass
class _Actor:
    device: str | None = None
    since: float = 0.0
    aside: bool = False  # its device was broken in an earlier round
    held: set[str] = field(default_factory=set)
    started: bool = False
    explained: str | None = None
    deaths: int = 0  # since it made a row last, or began
    others_then: int = 0  # rows that others had made when those deaths began
    made: int = 0
    broken: str | None = None


class AttemptBoard:
    """Counts attempts and deaths. Not thread-safe: calls come one by one.

    Args:
        given_up_before: names of rows that an earlier run gave up; each has one more try, alone.
        past: what earlier rounds of this run found.
        parts: that the rows come from; see `read`. None where that is not known.
        clock: seconds.
    """

    def __init__(
        self,
        given_up_before: Collection[str] = (),
        *,
        past: Lessons | None = None,
        parts: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._past = past or Lessons()
        self._before = frozenset(given_up_before).union(self._past.unconfirmed)
        self._actors: dict[str, _Actor] = {}
        self._groups: dict[str, Group] = {}
        self._alone: dict[str, int] = {}
        self._made_then: dict[str, int] = {}  # row that ended its engine alone -> rows that its actor had made
        self._given_up: dict[str, str] = {}
        self._unconfirmed: dict[str, str | None] = {}
        self._numbers, self._streak, self._made = 0, 0, 0
        self._parts, self._read, self._clock = parts, set[str](), clock
        self._idle_since: float | None = None
        self._account = PassAccount(clock)

    def begin(self, actor: str, in_flight: Collection[str] | None = None, reason: str | None = None, device: str | None = None) -> Start:
        """A process of an actor begins, before it starts its engine.

        Args:
            actor: its id, which stays when Ray starts it again.
            in_flight: what was with its engine when it died; None if that is not known.
            reason: how it died, if a traceback tells.
            device: names what its engine runs on, the same in every round; None if it has none of its own.

        Raises:
            EngineDownError: this engine does not work, whatever it is asked.
        """
        self._account.begin(actor)
        if actor not in self._actors:
            why = None if device is None else self._past.devices.get(device)
            self._actors[actor] = _Actor(device, self._clock(), aside=why is not None, broken=why)
            return Start(broken=why)
        state = self._actors[actor]
        if state.broken is None:
            self._death(state, in_flight, " ".join((state.explained or reason or _NO_WORD).split())[:300])
        state.started, state.explained = False, None
        return Start(again=True, broken=state.broken)

    def started(self, actor: str) -> None:
        """Its engine is up."""
        self._actors[actor].started = True

    def explain(self, actor: str, reason: str) -> None:
        """It is about to end itself."""
        self._actors[actor].explained = reason

    def take(self, actor: str, names: Collection[str]) -> Suspicion:
        """It is handed rows, once or, after a death, again."""
        self._actors[actor].held.update(names)
        for name in names:
            if name in self._before and name not in self._groups:
                self._groups[name] = self._group(0)
        return Suspicion(
            {name: self._groups[name] for name in names if name in self._groups},
            {name: self._given_up[name] for name in names if name in self._given_up},
        )

    def made(self, actor: str, rows: int) -> None:
        """So many rows of it are durable."""
        state = self._actors[actor]
        state.deaths = 0
        state.made += rows
        self._made += rows
        self._streak = 0

    def done(self, actor: str, names: Collection[str]) -> None:
        """It is through with rows that it took."""
        self._actors[actor].held.difference_update(names)

    def read(self, part: str) -> None:
        """All rows of a part of the source are on their way."""
        self._read.add(part)

    def rest(self, actor: str) -> Rest:
        """What an actor does that is broken: it waits as long as others work, so that it is handed nothing meanwhile."""
        state, now = self._actors[actor], self._clock()
        others = [each for name, each in self._actors.items() if name != actor and each.broken is None]
        if not others:
            if not state.aside:
                return Rest.HAND_BACK
            if now - state.since < _ALONE_S:
                return Rest.WAIT
            state.aside, state.broken, state.deaths = False, None, _BROKEN_AFTER - 1
            return Rest.WORK
        if any(each.held for each in others):
            self._idle_since = None
            return Rest.WAIT
        if self._idle_since is None:
            self._idle_since = now
        through = self._parts is not None and len(self._read) >= self._parts
        return Rest.HAND_BACK if now - self._idle_since >= (_IDLE_THROUGH_S if through else _IDLE_S) else Rest.WAIT

    def tell(self, actor: str, account: ActorAccount) -> None:
        """What it has done so far, told every few seconds."""
        self._account.tell(actor, account)

    def facts(self) -> PassFacts:
        """What all actors have done so far."""
        return self._account.facts()

    def lessons(self) -> Lessons:
        """What the next round of the run is to know."""
        broken = {name: state for name, state in self._actors.items() if state.broken is not None and not state.aside}
        cleared = {self._past.unconfirmed[name] for name in self._given_up if name in self._past.unconfirmed}  # it was the row
        devices = {device: why for device, why in self._past.devices.items() if device not in cleared}
        return Lessons(
            {name: str(state.broken) for name, state in broken.items()},
            devices | {state.device: str(state.broken) for state in broken.values() if state.device is not None},
            self._unconfirmed,
        )

    def _death(self, state: _Actor, in_flight: Collection[str] | None, reason: str) -> None:
        others = self._made - state.made
        if not state.deaths:
            state.others_then = others
        state.deaths += 1
        suspects = state.held if in_flight is None else state.held.intersection(in_flight)
        suspects = {name for name in suspects if name not in self._given_up} if state.started else set()
        if state.deaths >= _BROKEN_AFTER and (others > state.others_then or (others and not state.made)):
            died = f"its engine died {state.deaths} times without making a row while others made some"
            self._set_aside(state, f"{died}; the last time: {reason}")
            return
        if state.deaths >= _DOWN_AFTER:
            raise EngineDownError(f"an engine died {state.deaths} times in a row without making a row; the last time: {reason}")
        if len(suspects) == 1:
            self._alone_again(suspects.pop(), state, reason)
        elif suspects:
            self._divide(suspects)

    def _set_aside(self, state: _Actor, why: str) -> None:
        state.broken = why
        for name in state.held:  # it was not they
            self._groups.pop(name, None)
            self._alone.pop(name, None)
            self._made_then.pop(name, None)

    def _alone_again(self, name: str, state: _Actor, reason: str) -> None:
        self._alone[name] = self._alone.get(name, 0) + 1
        made_then = self._made_then.setdefault(name, state.made)
        deaths = self._groups[name].deaths + 1 if name in self._groups else 1
        self._groups[name] = self._group(deaths, last=True)
        if self._alone[name] < (1 if name in self._before else _DEATHS_ALONE):
            return
        others = any(each.broken is None for each in self._actors.values() if each is not state)
        if name not in self._before and state.made == made_then and others:
            self._unconfirmed[name] = state.device
            died = f"its engine died {self._alone[name]} times, each time with one row, and made none between"
            self._set_aside(state, f"{died}; the last time: {reason}")
            return
        self._given_up[name] = reason
        state.deaths = 0  # they were the row's
        self._streak += state.made == made_then
        if self._streak > _GIVEN_UP_IN_A_ROW:
            raise EngineDownError(f"{self._streak} rows in a row ended their engine, so it is not the rows; the last time: {reason}")

    def _divide(self, suspects: Iterable[str]) -> None:
        ordered = sorted(suspects)
        deaths = 1 + max((self._groups[name].deaths for name in ordered if name in self._groups), default=0)
        size = -(-len(ordered) // _PARTS)
        for start in range(0, len(ordered), size):
            group = self._group(deaths)
            self._groups.update(dict.fromkeys(ordered[start : start + size], group))

    def _group(self, deaths: int, *, last: bool = False) -> Group:
        self._numbers += 1
        return Group(deaths, self._numbers, last)
