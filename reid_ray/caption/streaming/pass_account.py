"""Account of a pass: what its actors hold, what their engines do and what they wait for, summed from what each actor tells of itself.

Knows numbers; not how they were measured (stage_clock.py) nor who is shown them (live_metrics.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from reid_ray.caption.streaming.stage_clock import CAUSES, ENGINE

START = "start"  # the cause of time that an actor has held its place and not told of
_SILENT_S = 60.0  # since it told, after which an actor is taken for gone


@dataclass(frozen=True)
class ActorAccount:
    """What a process of an actor has done since its engine was up, and what is with it now.

    seconds: by cause, see StageClock. request_seconds: of steps, times the requests that ran in each.
    running, waiting: requests. cache_use: share of the key-value cache in use; None where the engine does not tell.
    """

    seconds: Mapping[str, float]
    request_seconds: float
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    running: int
    waiting: int
    cache_use: float | None


@dataclass(frozen=True)
class PassFacts:
    """Sums over the actors of a stage: since the pass began, and, in the last four, of this moment."""

    actor_seconds: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    request_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    running: int = 0
    waiting: int = 0
    cache_use: float = 0.0
    tell_cache: int = 0  # actors that cache_use is summed over

    def __add__(self, other: PassFacts) -> PassFacts:
        return self._with(other, 1)

    def since(self, earlier: PassFacts) -> PassFacts:
        """What came to it since; what is of the moment stays."""
        now = {name: getattr(self, name) for name in ("running", "waiting", "cache_use", "tell_cache")}
        return PassFacts(**{**vars(self._with(earlier, -1)), **now})

    def shares(self) -> dict[str, float]:
        """Share of the actors' time by cause, START among them."""
        told = sum(self.seconds.values())
        seconds = {**self.seconds, START: max(0.0, self.actor_seconds - told)}
        total = max(told, self.actor_seconds)
        return {cause: seconds.get(cause, 0.0) / total if total else 0.0 for cause in (*CAUSES, START)}

    def _with(self, other: PassFacts, sign: int) -> PassFacts:
        sums: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "seconds"}
        seconds = {cause: self.seconds.get(cause, 0.0) + sign * other.seconds.get(cause, 0.0) for cause in CAUSES}
        return PassFacts(**{name: value + sign * getattr(other, name) for name, value in sums.items()}, seconds=seconds)


@dataclass
class _Told:
    begun: float
    heard: float
    before: PassFacts = PassFacts()  # of its earlier processes
    last: ActorAccount | None = None


class PassAccount:
    """Keeps what each actor told last.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._actors: dict[str, _Told] = {}

    def begin(self, actor: str) -> None:
        """A process of an actor begins: the first, or another in the place of one that died."""
        told = self._actors.setdefault(actor, _Told(self._clock(), self._clock()))
        told.before, told.last = told.before + _done(told.last), None
        told.heard = self._clock()

    def tell(self, actor: str, account: ActorAccount) -> None:
        """An actor tells of its process."""
        told = self._actors[actor]
        told.last, told.heard = account, self._clock()

    def facts(self) -> PassFacts:
        """The sums; an actor holds its place until now, or until it was heard of last if that is long ago and it had started."""
        total, now = PassFacts(), self._clock()
        for told in self._actors.values():
            gone = told.last is not None and now - told.heard > _SILENT_S
            total += told.before + _done(told.last) + PassFacts(actor_seconds=(told.heard if gone else now) - told.begun)
            if told.last is not None and not gone:
                total += _at_hand(told.last)
        return total


def _done(account: ActorAccount | None) -> PassFacts:
    if account is None:
        return PassFacts()
    names = ("seconds", "request_seconds", "prompt_tokens", "cached_tokens", "tokens")
    return PassFacts(**{name: getattr(account, name) for name in names})


def _at_hand(account: ActorAccount) -> PassFacts:
    tells = account.cache_use is not None
    return PassFacts(running=account.running, waiting=account.waiting, cache_use=account.cache_use or 0.0, tell_cache=int(tells))


def in_words(facts: PassFacts, seconds: float) -> str:
    """A stage of a pass in a few words.

    Args:
        facts: of the last so many seconds.
        seconds: that they are of.
    """
    if not facts.actor_seconds:
        return "no actor yet"
    read, written = facts.prompt_tokens / seconds, facts.tokens / seconds
    words = [f"{facts.running:,} run, {facts.waiting:,} wait, {read:,.0f}+{written:,.0f} tok/s"]
    if facts.prompt_tokens:
        words.append(f"hits {facts.cached_tokens / facts.prompt_tokens:.0%}")
    if facts.tell_cache:
        words.append(f"cache {facts.cache_use / facts.tell_cache:.0%}")
    return ", ".join([*words, shares_in_words(facts)])


def shares_in_words(facts: PassFacts) -> str:
    """Where the time went, the engine first, then the rest from a hundredth on, the largest first."""
    shares = Counter(facts.shares())
    engine = shares.pop(ENGINE, 0.0)
    return ", ".join([f"{ENGINE} {engine:.0%}", *(f"{cause} {share:.0%}" for cause, share in shares.most_common() if share >= 0.01)])
