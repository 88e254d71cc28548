"""Replicas go over to a newer generation together, wait for the slow ones for a while, and for the dead ones not at all."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from small_services import VECTORS, small_gallery

from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.retrieval.generation_turns import FlippingView, GenerationTurns


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


def test_a_generation_is_served_once_all_that_live_have_prepared_it():
    clock = Clock()
    turns = GenerationTurns(wait_s=5, gone_s=2, clock=clock)
    assert [turns.report("a", 3), turns.report("b", 3)] == [3, 3]
    assert [turns.report("a", 4), turns.report("b", 3), turns.report("a", 4)] == [3, 3, 3]
    assert [turns.report("b", 4), turns.report("a", 4)] == [4, 4]
    clock.now = 1.0
    assert turns.report("a", 5) == 4
    clock.now = 2.5  # nothing was heard of b for more than gone_s
    assert turns.report("a", 5) == 5


def test_one_that_lives_and_does_not_prepare_is_waited_for_so_long_and_no_longer():
    clock = Clock()
    turns = GenerationTurns(wait_s=5, gone_s=2, clock=clock)
    assert [turns.report("fast", 1), turns.report("slow", 1)] == [1, 1]
    served = {}
    for clock.now in np.arange(0.5, 7.0, 0.5):
        served[clock.now] = (turns.report("fast", 2), turns.report("slow", 1))
    assert {each for now, each in served.items() if now <= 5.5} == {(1, 1)}
    assert {each for now, each in served.items() if now > 5.5} == {(2, 2)}


@pytest.fixture
def replicas(tmp_path, monkeypatch):
    """Two views of one gallery that look when they are told to."""
    monkeypatch.setattr("reid_ray.retrieval.generation_turns._LOOK_EVERY_S", 1e6)
    monkeypatch.setattr("reid_ray.retrieval.generation_turns._TOLD_WITHIN_S", 30.0)
    folder, turns = small_gallery(tmp_path / "gallery"), GenerationTurns()
    views = [FlippingView(folder, turns, name=name) for name in "ab"]
    for view in views:
        view.look()
    yield folder, views
    for view in views:
        view._ended.set()


def generations(views):
    found = []
    for view in views:
        with view.held() as held:
            found.append(held.generation)
    return found


def test_two_replicas_flip_together_and_a_search_that_has_begun_ends_on_what_it_began_with(replicas):
    folder, (a, b) = replicas
    before = generations((a, b))
    with GalleryWriter(folder) as writer, a.held() as held:
        writer.delete(["3"])
        a.look()
        b.look()
        assert [len(held), *generations((a, b))] == [11, *before], "the log is followed within a generation"
        writer.compact()
        a.look()
        a.look()
        assert generations((a, b)) == before, "b has not prepared it"
        b.look()
        assert generations((a, b)) == [before[0], before[1] + 1], "both have, and b knows"
        a.look()
        assert generations((a, b)) == [before[0] + 1, before[1] + 1]
        assert held.generation == before[0]
        assert [hit.item_id for hit in held.search(VECTORS[:1], 1)[0]] == ["0"], "what is held is open still"
        assert len(a._left) == 1
    assert a._left == {}
    with a.held() as held:
        assert held.get(["3", "4"])[0] is None


def test_what_a_newer_generation_removes_is_hidden_though_another_replica_is_waited_for(replicas):
    folder, (a, b) = replicas
    before = generations((a, b))
    with GalleryWriter(folder) as writer:
        writer.erase(["1"], request="at-its-end")  # of the older generation, after the last look
        writer.seal()
        writer.delete(["2"])
        a.look()
        writer.erase(["3"], request="while-waiting")
        writer.delete(["4"])
        a.look()
        assert generations((a, b)) == before, "b is waited for"
        with a.held() as held:  # the older generation still
            assert [each is None for each in held.get(["1", "2", "3", "4", "5"])] == [True, True, True, True, False]
            assert len(held) == 8
        b.look()
        a.look()
    assert generations((a, b)) == [before[0] + 1] * 2


def test_a_replica_that_missed_a_generation_waits_for_nobody_for_what_that_erased_is_named_nowhere(replicas):
    folder, (a, _) = replicas
    with GalleryWriter(folder) as writer:
        writer.erase(["1"], request="now")
        writer.carry_out_erasures()
        a.look()
        with a.held() as held:
            assert held.get(["1"]) == [None]
            assert held.generation == writer.view.generation


class Silent:
    """Keeper of turns that does not answer before it is released, and fails then."""

    def __init__(self):
        self.released = threading.Event()

    def report(self, replica, prepared):
        self.released.wait(30)
        raise OSError("it is gone")


def look_until(view, generation):
    end = time.monotonic() + 20
    while generations([view]) != [generation]:
        assert time.monotonic() < end, "another generation is served still"
        view.look()


def test_a_keeper_of_turns_that_is_silent_holds_up_no_look_and_after_a_while_no_generation(tmp_path, monkeypatch):
    monkeypatch.setattr("reid_ray.retrieval.generation_turns._LOOK_EVERY_S", 1e6)
    folder, turns = small_gallery(tmp_path / "gallery"), Silent()
    view = FlippingView(folder, turns, name="a")
    before = generations([view])[0]
    with GalleryWriter(folder) as writer:
        view.look()
        writer.delete(["3"])
        view.look()
        writer.seal()
        writer.delete(["4"])
        view.look()
        with view.held() as held:
            assert held.get(["3", "4"]) == [None, None]
        look_until(view, before + 1)  # others are waited for, but not for ever
        assert not turns.released.is_set()
        turns.released.set()
        writer.delete(["5"])
        writer.seal()
        look_until(view, before + 2)
    view._ended.set()


@pytest.mark.slow
def test_many_searches_and_flips_at_once_find_every_item(replicas):
    folder, (a, b) = replicas
    ended, failures = threading.Event(), []

    def ask(view):
        while not ended.is_set():
            try:
                with view.held() as held:
                    found = [hit.item_id for hit in held.search(VECTORS[5:6], 12)[0]]
                    assert (len(found), found[0]) == (12, "5")
                    assert held.thumbnail("5")
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)
                return

    threads = [threading.Thread(target=ask, args=(view,)) for view in (a, b) for _ in range(2)]
    for thread in threads:
        thread.start()
    with GalleryWriter(folder) as writer:
        for _ in range(10):
            writer.add(some(writer), encoder="e")
            writer.delete(["extra"])
            writer.compact()
            for view in (a, b, a):
                view.look()
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert generations((a, b)) == [writer.view.generation] * 2


def some(writer):
    """A table with one more item."""
    import pyarrow as pa

    vector = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[0]), VECTORS.shape[1])
    return pa.table({"item_id": ["extra"], "embedding": vector})
