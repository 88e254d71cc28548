"""Where the time of a pass goes: causes told apart by what threads are at, sums over actors that die, and the words for them."""

from __future__ import annotations

import threading
import time

import pytest

from reid_ray.caption.engines.protocol import EngineLoad, Reply
from reid_ray.caption.live_metrics import PassLine
from reid_ray.caption.streaming.admission import Admission
from reid_ray.caption.streaming.engine_loop import EngineLoop, Request
from reid_ray.caption.streaming.in_flight import InFlightRecord
from reid_ray.caption.streaming.pass_account import ActorAccount, PassAccount, PassFacts, in_words
from reid_ray.caption.streaming.scoring_loop import PairToScore, ScoringLoop
from reid_ray.caption.streaming.stage_clock import StageClock
from reid_ray.caption.streaming.work_stream import Work, WorkStream


def test_a_moment_counts_for_the_first_cause_that_any_thread_is_at():
    now = [0.0]
    clock = StageClock(lambda: now[0])
    for length, change in (
        (1.0, lambda: clock.begin("storage")),  # until here nobody was at anything
        (2.0, lambda: clock.begin("decode")),
        (4.0, lambda: clock.begin("decode")),
        (8.0, lambda: clock.begin("engine")),
        (16.0, lambda: clock.end("decode")),
        (32.0, lambda: clock.end("engine")),
        (64.0, lambda: clock.end("decode")),
        (128.0, lambda: clock.end("storage")),
    ):
        now[0] += length
        change()
    now[0] += 256.0
    assert clock.seconds() == {
        "engine": 16.0 + 32.0,
        "decode": 4.0 + 8.0 + 64.0,
        "scores": 0.0,
        "storage": 2.0 + 128.0,
        "source": 1.0 + 256.0,
    }


class PacedEngine:
    """Every step takes as long, and ends what runs; tells its load."""

    capacity = 4

    def __init__(self, step_s):
        self.step_s, self.open = step_s, []

    def prepare(self, conversation, key):
        time.sleep(float(conversation[0]["content"]))
        return key

    def add(self, request, prepared):
        self.open.append(request)

    def step(self):
        time.sleep(self.step_s)
        ended, self.open = self.open, []
        return [(name, Reply("fine", tokens=3, prompt_tokens=10, cached_tokens=4)) for name in ended]

    def load(self):
        return EngineLoad(len(self.open), 0, 0.25)


class SlowScores:
    def score(self, originals, rewrites):
        import numpy as np

        time.sleep(0.2)
        return np.ones(len(originals))


@pytest.mark.slow
def test_an_actor_tells_what_its_engine_waited_for(tmp_path):
    engine, began = PacedEngine(0.1), time.perf_counter()
    loop = EngineLoop(engine, timeout_s=60, traceback=tmp_path / "traceback", explain=lambda _: None)
    stream = WorkStream(
        loop,
        ScoringLoop(SlowScores(), die=lambda *_: None),
        gate=Admission(4),
        record=InFlightRecord(tmp_path / "rows"),
        flush=lambda: None,
        explain=lambda _: None,
    )

    def work():
        yield [Request([{"role": "user", "content": "0.3"}], "a")]
        yield [PairToScore("a", "b")]
        return [{}]

    time.sleep(0.2)
    stream.run([Work("a", work)], lambda *_: None)
    time.sleep(0.05)
    account = stream.account()
    slept = {"decode": 0.3, "engine": 0.1, "scores": 0.2, "source": 0.25, "storage": 0.0}
    late = sum(account.seconds.values()) - sum(slept.values())  # on a busy machine any of them takes longer, and the sum knows by how much
    assert 0 <= late <= time.perf_counter() - began - sum(slept.values())
    assert account.seconds.keys() == slept.keys()
    for stage, seconds in slept.items():
        assert seconds - 0.01 <= account.seconds[stage] <= seconds + late + 0.01, stage
    assert account.request_seconds == pytest.approx(account.seconds["engine"], abs=0.03 + late)
    assert (account.prompt_tokens, account.cached_tokens, account.tokens) == (10, 4, 3)
    assert (account.running, account.waiting, account.cache_use) == (0, 0, 0.25)


def told(seconds, **counts):
    numbers = {"request_seconds": 0.0, "prompt_tokens": 0, "cached_tokens": 0, "tokens": 0, "running": 0, "waiting": 0, "cache_use": None}
    return ActorAccount(seconds, **(numbers | counts))


def test_an_account_sums_actors_their_deaths_and_what_they_hold_while_they_start():
    now = [0.0]
    account = PassAccount(lambda: now[0])
    for actor in "ab":
        account.begin(actor)
    now[0] = 10.0
    account.tell("a", told({"engine": 6.0, "decode": 2.0}, tokens=100, running=5, cache_use=0.5))
    account.tell("b", told({"engine": 1.0}, tokens=10, running=2, waiting=1, cache_use=0.1))
    account.begin("b")  # it died
    facts = account.facts()
    assert (facts.actor_seconds, facts.tokens, facts.running, facts.tell_cache) == (20.0, 110, 5, 1)
    now[0] = 20.0
    account.tell("b", told({"engine": 4.0}, tokens=40, running=3))
    later = account.facts()
    assert (later.seconds["engine"], later.tokens, later.running) == (11.0, 150, 8)
    assert later.shares() == pytest.approx({"engine": 11 / 40, "decode": 2 / 40, "scores": 0, "storage": 0, "source": 0, "start": 27 / 40})
    assert (later.since(facts).tokens, later.since(facts).running) == (40, 8)
    now[0] = 1000.0  # a was not heard of for long: Ray Data has let it go
    account.tell("b", told({"engine": 4.0}, tokens=40))
    assert account.facts().actor_seconds == 10.0 + 1000.0


def test_the_words_name_what_takes_a_hundredth_of_the_time_and_more():
    facts = PassFacts(200.0, {"engine": 180.0, "decode": 1.0, "source": 19.0}, 0.0, 1000, 480, 500, 62, 40, 1.2, 2)
    assert in_words(facts, 10.0) == "62 run, 40 wait, 100+50 tok/s, hits 48%, cache 60%, engine 90%, source 10%"
    assert in_words(PassFacts(), 10.0) == "no actor yet"


def test_a_bars_end_has_counts_at_once_and_loads_of_the_time_since_the_last_look():
    class Bar:
        n, said = 0, []

        def update(self, images):
            self.n += images

        def set_postfix_str(self, text, *, refresh):
            self.text = text

        def refresh(self):
            self.said.append(self.text)

    account, bar = PassAccount(), Bar()
    account.begin("a")
    line = PassLine(bar, {"captioner": account})
    line.count(3, "1 failed")
    assert (bar.n, bar.text, bar.said) == (3, "1 failed", [])
    account.tell("a", told({"engine": 1.0}, prompt_tokens=10, running=7))
    line.look()
    (said,) = bar.said
    assert said.startswith("1 failed; captioner: 7 run, 0 wait, ")
    threading.Event().wait(0.01)
    line.look()
    assert " 0+0 tok/s" in bar.said[-1]
