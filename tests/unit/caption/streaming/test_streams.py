"""An engine that is kept full: what runs together, what waits, what is aborted, and what becomes durable when."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from answered_works import asked
from refusals import refused

from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.engines.protocol import Reply
from reid_ray.caption.image_captions import Captioner
from reid_ray.caption.ledger.missing import ASK
from reid_ray.caption.ledger.row_keys import ImageAsk
from reid_ray.caption.streaming import work_stream
from reid_ray.caption.streaming.admission import FREE, Admission, Group
from reid_ray.caption.streaming.engine_loop import EXIT_CODE, EngineLoop, Request, how_it_hung
from reid_ray.caption.streaming.fair_lock import FairLock
from reid_ray.caption.streaming.group_commit import GroupCommit
from reid_ray.caption.streaming.in_flight import InFlightRecord, left_by
from reid_ray.caption.streaming.scoring_loop import PairToScore, ScoringLoop
from reid_ray.caption.streaming.work_stream import Work, WorkStream
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import EngineDownError

PEOPLE = SyntheticPeople(SyntheticConfig(identities=4, images_per_identity=1))


def takes(steps):
    """A conversation whose answer takes so many steps."""
    return [{"role": "user", "content": str(steps)}]


class SteppingEngine:
    """Each request takes as many steps as its conversation says; counts what runs in every step."""

    def __init__(self, capacity=4, *, step_s=0.0):
        self.capacity, self.step_s = capacity, step_s
        self.waiting, self.running, self.history, self.aborted = {}, {}, [], []

    def prepare(self, conversation, key):
        steps = conversation[0]["content"]
        return Reply(None, error=f"too long by {key}") if steps == "refused" else (int(steps), key)

    def add(self, request, prepared):
        self.waiting[request] = prepared

    def step(self):
        while self.waiting and len(self.running) < self.capacity:
            name = next(iter(self.waiting))
            steps, key = self.waiting.pop(name)
            self.running[name] = [steps, key]
        self.history.append(sorted(key for _, key in self.running.values()))
        time.sleep(self.step_s)
        done = []
        for name, state in list(self.running.items()):
            state[0] -= 1
            if not state[0]:
                done.append((name, Reply(f"answer to {state[1]}", tokens=1)))
                del self.running[name]
        return done

    def abort(self, requests):
        self.aborted += [self.running.pop(name, self.waiting.pop(name, None)) for name in requests]


class Pairs:
    """Scores pairs by their lengths; says how many came together."""

    def __init__(self):
        self.together = []

    def score(self, originals, rewrites):
        import numpy as np

        self.together.append(len(originals))
        time.sleep(0.02)
        return np.array([len(text) / 10 for text in rewrites], np.float32)


@pytest.fixture
def stream_of(tmp_path):
    def make(
        engine, *, size=6, always=1, most_bytes=None, width=1, together=1, timeout_s=60.0, scorer=None, explain=pytest.fail, **further
    ):
        traceback = tmp_path / "traceback"
        loop = EngineLoop(engine, together=together, timeout_s=timeout_s, traceback=traceback, explain=explain, **further)
        scoring = None if scorer is None else ScoringLoop(scorer, die=lambda error, texts: pytest.fail(str(error)))
        gate = Admission(size, always, most_bytes, width)
        stream = WorkStream(loop, scoring, gate=gate, record=InFlightRecord(tmp_path / "rows"), flush=lambda: None, explain=explain)
        return stream, gate, loop

    return make


def finished(stream, works):
    """Works and their rows in the order in which they are done."""
    done = []
    stream.run(works, lambda work, rows: done.append((work, rows)))
    return done


def asks(name, *steps, conversation=None):
    """A work that asks one request after the other."""

    def converse():
        texts = []
        for number, count in enumerate(steps):
            (reply,) = yield [Request(takes(conversation or count), f"{name}/{number}")]
            texts.append(reply.text or reply.error)
        return [{"name": name, "texts": texts}]

    return Work(name, converse)


def test_calls_share_an_engine_that_stays_full_though_answers_are_of_uneven_length(stream_of):
    engine = SteppingEngine(capacity=8, step_s=0.002)
    stream, _, _ = stream_of(engine, size=12)
    lengths = [1, 2, 3, 20] * 30
    done, threads = [], []

    def call(part):
        done.extend(work.name for work, _ in finished(stream, [asks(str(number), lengths[number]) for number in part]))

    for start in range(0, 120, 12):
        threads.append(threading.Thread(target=call, args=(range(start, start + 12),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done, key=int) == [str(number) for number in range(120)]
    best = -(-sum(lengths) // 8)
    assert len(engine.history) <= 1.2 * best + 20  # the last long ones run alone


def test_a_step_waits_for_what_is_being_prepared_while_there_is_room_for_it(stream_of):
    class SlowToPrepare(SteppingEngine):
        def prepare(self, conversation, key):
            time.sleep(0.002)
            return super().prepare(conversation, key)

    engine = SlowToPrepare(capacity=16, step_s=0.01)
    stream, _, _ = stream_of(engine, size=32)
    finished(stream, [asks(str(number), 30) for number in range(16)])
    assert len(engine.history) <= 30 + 6  # the first steps see what was prepared during the one before, and the last one's thirty are full


@pytest.mark.parametrize("together", [1, 4, 16])
def test_requests_join_together_where_that_is_asked_for_and_all_are_answered(stream_of, together):
    engine = SteppingEngine(capacity=16, step_s=0.002)
    stream, _, loop = stream_of(engine, size=32, together=together)
    lengths = [3 + number * 7 % 11 for number in range(160)]
    done = finished(stream, [asks(str(number), length) for number, length in enumerate(lengths)])
    assert sorted(int(work.name) for work, _ in done) == list(range(160))
    joining = [len(set(now) - set(before)) for before, now in zip([[], *engine.history], engine.history, strict=False)]
    with_joining = sum(count > 0 for count in joining)
    assert sum(joining) == 160
    assert max(len(running) for running in engine.history) <= 16
    if together > 1:
        assert with_joining <= 160 / together + 3  # the first and the last ones have nobody to join with
    assert loop.load().waiting == 0


def test_those_who_wait_to_join_are_told_that_the_engine_is_lost(stream_of):
    class Down(SteppingEngine):
        def step(self):
            time.sleep(0.2)
            raise EngineDownError("no more")

    stream, _, _ = stream_of(Down(capacity=4), size=8, together=4)
    with refused(EngineDownError, "no more"):
        finished(stream, [asks(str(number), 5) for number in range(8)])


def test_calls_that_come_together_are_asked_one_after_the_other_so_that_they_do_not_end_together(stream_of):
    """Ray Data makes the next call when one is over: an engine whose calls all end together runs dry before it has the next rows."""
    asked = []

    class Slow(SteppingEngine):
        def prepare(self, conversation, key):
            asked.append(key[0])
            time.sleep(0.001)  # else the first call has entered before the second begins
            return super().prepare(conversation, key)

    stream, _, _ = stream_of(Slow(capacity=8), size=12)
    calls = [[asks(f"{call}-{row}", 2 + row % 5) for row in range(16)] for call in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda works: finished(stream, works), calls))
    assert [len(works) for works in done] == [16] * 4
    assert len([call for call, _ in itertools.groupby(asked)]) == 4, asked


def test_rows_enter_line_by_line_in_the_order_in_which_the_lines_came():
    gate, told = Admission(3, width=2), []
    for name, rows in zip("abc", (2, 2, 3), strict=True):
        gate.announce(FREE, rows, name)
    with ExitStack() as stack:
        for name in "abc":
            stack.enter_context(gate.listening(lambda name=name: told.append(name), name))
        assert not gate.try_enter(FREE, "c")
        assert gate.try_enter(FREE, "b")
        assert gate.try_enter(FREE, "b")
        assert told == ["c"]  # whose turn it is now that b has entered whole
        assert gate.try_enter(FREE, "c")
        assert not gate.try_enter(FREE, "a")  # there is no room
        gate.leave(line="b", takes_the_place=True)
        gate.leave(line="b", takes_the_place=True)
        assert sorted(told[1:]) == ["a", "c"]  # by turns
        gate.leave(line="c", takes_the_place=True)
        assert len(told) == 3  # c takes its own
    gate.withdraw(FREE, 2, "a")
    gate.withdraw(FREE, 2, "c")
    assert gate.waiting == 0


def test_a_work_asks_again_and_gets_the_answers_to_what_it_asked(stream_of):
    engine = SteppingEngine()
    stream, gate, _ = stream_of(engine)
    rows = {work.name: rows for work, rows in finished(stream, [asks("a", 1, 3, 2), asks("b", 2), asks("c", 1, conversation="refused")])}
    assert rows["a"] == [{"name": "a", "texts": ["answer to a/0", "answer to a/1", "answer to a/2"]}]
    assert rows["b"] == [{"name": "b", "texts": ["answer to b/0"]}]
    assert rows["c"] == [{"name": "c", "texts": ["too long by c/0"]}]
    gate.announce(FREE, 7)
    assert [gate.try_enter(FREE) for _ in range(7)] == [True] * 6 + [False]  # nothing was left inside


def test_no_more_is_prepared_ahead_than_its_bytes_allow_and_what_decodes_together_always_is(stream_of):
    class Large:
        def __init__(self, steps, key):
            self.steps, self.key, self.nbytes = steps, key, 100

    class OfLargePictures(SteppingEngine):
        def prepare(self, conversation, key):
            return Large(int(conversation[0]["content"]), key)

        def add(self, request, prepared):
            with_it.append(len(self.waiting) + len(self.running) + 1)
            super().add(request, (prepared.steps, prepared.key))

    for most_bytes, most in ((650, 6), (1, 4), (10_000, 12)):
        with_it = []
        stream, _, _ = stream_of(OfLargePictures(capacity=4, step_s=0.005), size=12, always=4, most_bytes=most_bytes)
        assert len(finished(stream, [asks(str(number), 3) for number in range(40)])) == 40
        assert max(with_it) == most


def test_suspects_are_with_the_engine_in_their_group_alone_the_least_suspected_first(stream_of):
    engine = SteppingEngine(capacity=8, step_s=0.005)
    stream, _, _ = stream_of(engine, size=8)
    groups = {"a": Group(2, 5), "b": Group(1, 3), "c": Group(1, 3), "d": Group(1, 4)}
    works = [Work(name, asks(name, 3 if name in groups else 60).converse, group=groups.get(name, FREE)) for name in "abcdefgh"]
    assert [work.name for work, _ in finished(stream, works)][:4] == ["b", "c", "d", "a"]
    together = [{name.split("/")[0] for name in step} for step in engine.history]
    assert all(any(step <= set(group) for group in ("bc", "d", "a", "efgh")) for step in together)
    assert {"b", "c"} in together
    assert {"e", "f", "g", "h"} in together


def test_a_suspect_that_comes_last_waits_for_one_free_row_and_for_no_more(stream_of):
    engine = SteppingEngine(capacity=2)
    stream, _, _ = stream_of(engine, size=2)
    works = [Work(name, asks(name, 2).converse, group=Group(3, 9, last=True) if name == "a" else FREE) for name in "abcdef"]
    works += [Work("g", asks("g", 2).converse, group=Group(1, 1))]
    names = [work.name for work, _ in finished(stream, works)]
    assert names[0] == "g"  # another suspect has shown that the engine works
    assert names[1] == "a"
    assert all(len(step) == 1 for step in engine.history if "a/0" in step)
    gate = Admission(2)
    last = Group(3, 9, last=True)
    gate.announce(last, 1)
    gate.announce(FREE, 2)
    assert not gate.try_enter(last)
    assert gate.try_enter(FREE)
    gate.leave()
    assert not gate.try_enter(FREE)
    assert gate.try_enter(last)


def test_free_rows_of_another_call_wait_while_suspects_do(stream_of):
    engine = SteppingEngine(capacity=8, step_s=0.01)
    stream, _, _ = stream_of(engine, size=8)
    free = threading.Thread(target=lambda: finished(stream, [asks(str(number), 4) for number in range(60)]))
    free.start()
    time.sleep(0.1)
    finished(stream, [Work("suspect", asks("suspect", 3).converse, group=Group(1, 1))])
    free.join()
    assert all(len(step) == 1 for step in engine.history if "suspect/0" in step)
    assert any("suspect/0" in step for step in engine.history[:-4])  # not at the very end


def test_a_request_that_takes_too_long_is_aborted_and_the_others_go_on(stream_of):
    engine = SteppingEngine(step_s=0.01)
    stream, _, _ = stream_of(engine, timeout_s=0.3)
    rows = {work.name: rows for work, rows in finished(stream, [asks("slow", 10_000), asks("quick", 3)])}
    assert rows["slow"][0]["texts"] == ["timed out after 0.3 s"]
    assert rows["quick"][0]["texts"] == ["answer to quick/0"]
    assert len(engine.aborted) == 1


def test_a_hundred_rejections_in_the_same_words_end_the_run_and_one_answer_among_them_does_not(stream_of):
    stream, _, _ = stream_of(SteppingEngine(), size=200)
    with refused(EngineDownError, "first 100 requests alike"):
        finished(stream, [asks(str(number), 1, conversation="refused") for number in range(150)])
    stream, _, _ = stream_of(SteppingEngine(), size=200)
    finished(stream, [asks("good", 1)])
    assert len(finished(stream, [asks(str(number), 1, conversation="refused") for number in range(150)])) == 150


def test_no_picture_is_kept_in_memory_while_the_engine_answers_though_a_failed_caption_needs_it_again(stream_of):
    """Decoded, a photograph takes some megabytes, and a hundred and more are with an engine."""
    pictures, alive = [], []

    class ReadsPictures(SteppingEngine):
        def prepare(self, conversation, key):
            picture = conversation[0]["content"][0]["image_pil"]
            pictures.append(weakref.ref(picture))
            return super().prepare(takes(3), key)

        def step(self):
            if not alive and len(self.waiting) < 8:  # the first of all have yet to come
                time.sleep(0.001)
                return []
            if not alive:
                alive.append(sum(picture() is not None for picture in pictures))
            return [(name, Reply("<")) for name, _ in super().step()]

    config = CaptionerConfig(instructions=("static", "dynamic"), template_tries=2)
    images = asked(PEOPLE.image_table().slice(0, 4), config).to_pylist()
    captioner = Captioner("main", config, revision="r", max_pixels=10_000_000)
    works = [Work(row["image_id"], lambda row=row: captioner.work(row, ImageAsk.from_column(row.pop(ASK.name)))) for row in images]
    stream, _, _ = stream_of(ReadsPictures(capacity=8), size=4)
    assert [rows[0]["status"] for _, rows in finished(stream, works)] == ["failed"] * 4
    assert len(pictures) == 4 * 3  # both instructions, and another template
    assert alive == [0]


def test_an_error_for_the_user_reaches_every_call(stream_of):
    class Down(SteppingEngine):
        def step(self):
            raise EngineDownError("takes nobody")

    stream, _, _ = stream_of(Down())
    for _ in range(2):  # those who wait, and those who come later
        with refused(EngineDownError, "takes nobody"):
            finished(stream, [asks("a", 1)])


def test_pairs_are_scored_together_while_the_engine_runs(stream_of):
    scorer = Pairs()
    stream, _, _ = stream_of(SteppingEngine(capacity=32), size=32, scorer=scorer)

    def converse(name):
        (reply,) = yield [Request(takes(1), name)]
        (score,) = yield [PairToScore(name, reply.text)]
        return [{"score": score}]

    works = [Work(f"{number}", lambda number=number: converse(f"{number}")) for number in range(32)]
    rows = {work.name: rows[0]["score"] for work, rows in finished(stream, works)}
    assert rows["31"] == pytest.approx(len("answer to 31") / 10)
    assert sum(scorer.together) == 32
    assert len(scorer.together) < 12


def test_a_record_tells_what_was_with_the_engine_however_often_it_begins_anew(tmp_path, monkeypatch):
    from reid_ray.caption.streaming import in_flight

    monkeypatch.setattr(in_flight, "_REWRITE_AFTER", 100)
    path = tmp_path / "a.rows"
    assert left_by(path) is None
    record = InFlightRecord(path)
    for number in range(50):
        record.enter(f"row {number}")
        if number >= 3:
            record.leave(f"row {number - 3}")
    assert left_by(path) == {"row 47", "row 48", "row 49"}
    assert path.stat().st_size < 300
    InFlightRecord(path)
    assert left_by(path) == set()


def test_rows_become_durable_by_number_by_time_and_at_once_when_a_call_waits_for_them():
    written: queue.SimpleQueue[int] = queue.SimpleQueue()
    commit = GroupCommit(lambda rows: written.put(len(rows)), rows=10, seconds=0.3)
    rows = [{"n": number} for number in range(4)]
    for _ in range(3):
        commit.add(rows)
    assert written.get(timeout=5) == 12
    clock = time.monotonic()
    commit.add(rows)
    assert written.get(timeout=5) == 4
    assert time.monotonic() - clock >= 0.25
    clock = time.monotonic()
    commit.wait(commit.add(rows))
    assert time.monotonic() - clock < 0.25


def test_rows_that_make_no_group_yet_wake_nobody_to_write_them():
    commit = GroupCommit(lambda rows: None, rows=1000, seconds=60)
    commit.add([{"n": 0}])
    time.sleep(0.05)
    asked, due = [], commit._due
    commit._due = lambda: asked.append(threading.current_thread().name) or due()
    for number in range(1, 500):
        commit.add([{"n": number}])
    time.sleep(0.05)
    assert "group-commit" not in asked
    commit.flush()


def test_a_flush_makes_durable_what_was_added_and_waits_for_nothing_else():
    written = []
    commit = GroupCommit(lambda rows: written.append(len(rows)), rows=100, seconds=60)
    commit.flush()
    for _ in range(3):
        commit.add([{"n": 1}])
    commit.flush()
    assert written == [3]


def test_a_group_that_cannot_be_written_is_an_error_of_those_who_wait_for_it():
    def fails(_):
        raise OSError("disk full")

    commit = GroupCommit(fails, rows=1, seconds=9)
    with pytest.raises(OSError, match="disk full"):
        commit.wait(commit.add([{"n": 1}]))


@pytest.mark.parametrize("turns", [None, FairLock()], ids=["beside", "by turns"])
def test_a_row_is_prepared_while_no_step_runs_where_they_take_turns(stream_of, turns):
    together = []

    class Watched(SteppingEngine):
        stepping = 0

        def step(self):
            self.stepping += 1
            try:
                return super().step()
            finally:
                self.stepping -= 1

        def prepare(self, conversation, key):
            together.append(self.stepping)
            return super().prepare(conversation, key)

    stream, _, _ = stream_of(Watched(capacity=4, step_s=0.003), size=6, width=2, turns=turns)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(finished, stream, [asks(f"{call}/{row}", 2) for row in range(12)]) for call in range(2)]:
            assert len(done.result()) == 12
    assert len(together) == 24
    assert any(together) == (turns is None)


def test_an_engine_that_takes_turns_is_filled_before_its_first_step(stream_of, monkeypatch):
    monkeypatch.setattr(work_stream, "_LONGEST_TURN_S", 60.0)  # on a machine that does other things, a row may take as long as a turn may
    sys.setswitchinterval(1e-5)  # the engine's thread sees the first request before there is a second
    engine = SteppingEngine(capacity=4)
    stream, _, _ = stream_of(engine, turns=FairLock())
    assert len(finished(stream, [asks(str(row), 3) for row in range(4)])) == 4
    assert [len(running) for running in engine.history] == [4, 4, 4]


@pytest.mark.slow
def test_rows_that_take_long_to_prepare_do_not_make_an_engine_that_takes_turns_look_hung(tmp_path, monkeypatch):
    import os

    monkeypatch.setattr(work_stream, "_LONGEST_TURN_S", 0.05)
    child = os.fork()
    if not child:

        class Slow(SteppingEngine):
            def prepare(self, conversation, key):
                time.sleep(0.1)
                return super().prepare(conversation, key)

        loop = EngineLoop(Slow(24, step_s=0.01), timeout_s=1.5, traceback=tmp_path / "traceback", explain=print, turns=FairLock())
        record = InFlightRecord(tmp_path / "rows")
        stream = WorkStream(loop, None, gate=Admission(24), record=record, flush=lambda: None, explain=print)
        rows = [made["texts"] for _, (made,) in finished(stream, [asks("first", 3), *(asks(str(row), 1) for row in range(30))])]
        os._exit(0 if all(text.startswith("answer") for (text,) in rows) else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["prepare", "decode"])
def test_what_hangs_in_its_turn_ends_the_process_and_is_named(tmp_path, hangs):
    import os

    child = os.fork()
    if not child:

        class Hangs(SteppingEngine):
            def prepare(self, conversation, key):
                if hangs == "prepare" and key == "b/0":
                    time.sleep(60)
                return super().prepare(conversation, key)

        def decodes():
            time.sleep(60)
            yield []

        traceback, explain = tmp_path / "traceback", (tmp_path / "reason").write_text
        loop = EngineLoop(Hangs(step_s=0.01), timeout_s=1.0, traceback=traceback, explain=explain, turns=FairLock())
        record = InFlightRecord(tmp_path / "rows")
        stream = WorkStream(loop, None, gate=Admission(6), record=record, flush=lambda: None, explain=explain)
        works = [asks("a", 1000), asks("b", 1) if hangs == "prepare" else Work("b", decodes)]
        stream.run(works, print)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in {1, EXIT_CODE}
    said = how_it_hung(tmp_path / "traceback", timeout_s=1.0) or (tmp_path / "reason").read_text()
    assert said.startswith("timed out after 1 s in")
    assert "test_streams.py" in said or "preparation" in said


@pytest.mark.slow
def test_an_engine_whose_step_does_not_return_ends_its_process_and_says_where(tmp_path):
    import os

    child = os.fork()
    if not child:

        class Hangs(SteppingEngine):
            def step(self):
                time.sleep(60)

        loop = EngineLoop(Hangs(), timeout_s=0.5, traceback=tmp_path / "traceback", explain=lambda reason: None)
        loop.ask(Request(takes(1), "a"), lambda reply: None)
        time.sleep(30)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert "timed out after 0.5 s in File" in how_it_hung(tmp_path / "traceback", timeout_s=0.5)
    assert "test_streams.py" in how_it_hung(tmp_path / "traceback", timeout_s=0.5)


@pytest.mark.slow
def test_a_request_whose_preparation_does_not_return_ends_its_process_with_the_reason_while_others_are_answered(tmp_path):
    import os

    child, answered = os.fork(), tmp_path / "answered"
    if not child:

        class Hangs(SteppingEngine):
            def prepare(self, conversation, key):
                if key == "hangs":
                    time.sleep(60)
                return super().prepare(conversation, key)

        explain = (tmp_path / "reason").write_text
        loop = EngineLoop(Hangs(), timeout_s=0.5, traceback=tmp_path / "traceback", explain=explain)
        threading.Thread(target=loop.ask, args=(Request(takes(1), "hangs"), print), daemon=True).start()
        loop.ask(Request(takes(1), "b"), lambda reply: answered.write_text(reply.text))
        time.sleep(30)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == EXIT_CODE
    assert (tmp_path / "reason").read_text() == "timed out after 0.5 s in the preparation of a request"
    assert answered.exists()
