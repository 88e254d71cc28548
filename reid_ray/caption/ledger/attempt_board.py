"""Attempt board of one pass: which rows each actor holds, who died with what in its engine, and what follows from a death.

Knows names of rows and actors, and deaths; not what rows are, nor engines. It lives in a process that outlives the actors, that of the
driver or a Ray actor beside it, and ends with the pass; no file of it is left.

Ray starts an actor that dies again, under the same id, and hands it the same rows, for ever if one of them is what kills it. So an actor
that begins says what was with its engine when it died last (from the in-flight record of its node; on another node, all that it held).
Those rows are suspects. They are divided into isolation groups, an eighth of them each, and so on down to single rows: a group is with the
engine alone, so that the next death incriminates it alone. A row that dies alone, twice, is given up with the reason; once, if an earlier
run gave it up already. Its neighbours are made as if it were not there.

Deaths belong to an actor. One that dies time and again without making anything, while others of its pool make rows, is broken, not its
rows: it takes no more, and its rows are handed back, for others. If no actor makes anything, the engine itself does not work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from reid_ray.caption.streaming.admission import Group
from reid_ray.errors import EngineDownError

_DEATHS_ALONE = 2
_PARTS = 8  # that suspects are divided into
_BROKEN_AFTER = 4  # deaths without a row made, while others make some
_DOWN_AFTER = 8  # deaths without a row made, where nobody makes any
_GIVEN_UP_IN_A_ROW = 16  # rows, with none made between: then the engine is at fault, not the rows
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


@dataclass
class _Actor:
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
    """

    def __init__(self, given_up_before: Collection[str] = ()) -> None:
        self._before = frozenset(given_up_before)
        self._actors: dict[str, _Actor] = {}
        self._groups: dict[str, Group] = {}
        self._alone: dict[str, int] = {}
        self._given_up: dict[str, str] = {}
        self._numbers, self._streak, self._made = 0, 0, 0

    def begin(self, actor: str, in_flight: Collection[str] | None = None, reason: str | None = None) -> Start:
        """A process of an actor begins, before it starts its engine.

        Args:
            actor: its id, which stays when Ray starts it again.
            in_flight: what was with its engine when it died; None if that is not known.
            reason: how it died, if a traceback tells.

        Raises:
            EngineDownError: this engine does not work, whatever it is asked.
        """
        if actor not in self._actors:
            self._actors[actor] = _Actor()
            return Start()
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

    def others_hold(self, actor: str) -> bool:
        """Whether actors that are not broken still hold rows."""
        return any(state.held for name, state in self._actors.items() if name != actor and state.broken is None)

    def broken(self) -> dict[str, str]:
        """Actors that were broken, and why."""
        return {name: state.broken for name, state in self._actors.items() if state.broken is not None}

    def _death(self, state: _Actor, in_flight: Collection[str] | None, reason: str) -> None:
        others = self._made - state.made
        if not state.deaths:
            state.others_then = others
        state.deaths += 1
        suspects = state.held if in_flight is None else state.held.intersection(in_flight)
        suspects = {name for name in suspects if name not in self._given_up} if state.started else set()
        if state.deaths >= _BROKEN_AFTER and (others > state.others_then or (others and not state.made)):
            state.broken = f"its engine died {state.deaths} times without making a row while others made some; the last time: {reason}"
            for name in state.held:  # it was not they
                self._groups.pop(name, None)
                self._alone.pop(name, None)
            return
        if state.deaths >= _DOWN_AFTER:
            raise EngineDownError(f"an engine died {state.deaths} times in a row without making a row; the last time: {reason}")
        if len(suspects) == 1:
            self._alone_again(suspects.pop(), state, reason, others=others)
        elif suspects:
            self._divide(suspects)

    def _alone_again(self, name: str, state: _Actor, reason: str, *, others: int) -> None:
        self._alone[name] = self._alone.get(name, 0) + 1
        self._groups[name] = self._group(self._groups[name].deaths + 1 if name in self._groups else 1)
        if self._alone[name] < (1 if name in self._before else _DEATHS_ALONE):
            return
        if not state.made and others:
            return  # an actor that never made a row may be broken itself: it must show, by more deaths than its row alone would take
        self._given_up[name] = reason
        state.deaths = 0  # they were the row's
        self._streak += 1
        if self._streak > _GIVEN_UP_IN_A_ROW:
            raise EngineDownError(f"{self._streak} rows in a row ended their engine, so it is not the rows; the last time: {reason}")

    def _divide(self, suspects: Iterable[str]) -> None:
        ordered = sorted(suspects)
        deaths = 1 + max((self._groups[name].deaths for name in ordered if name in self._groups), default=0)
        size = -(-len(ordered) // _PARTS)
        for start in range(0, len(ordered), size):
            group = self._group(deaths)
            self._groups.update(dict.fromkeys(ordered[start : start + size], group))

    def _group(self, deaths: int) -> Group:
        self._numbers += 1
        return Group(deaths, self._numbers)
