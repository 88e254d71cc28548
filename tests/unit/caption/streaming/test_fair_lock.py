"""A fair lock: one at a time, whoever came first."""

import threading
import time

import pytest

from reid_ray.caption.streaming import fair_lock as module
from reid_ray.caption.streaming.fair_lock import FairLock


def wait_until(true):
    """Until something is so."""
    while not true():
        time.sleep(0.001)


def test_turns_go_to_whoever_waits_longest_and_not_to_who_had_the_last():
    turns, had = FairLock(), []

    def take(name):
        with turns.turn():
            had.append(name)

    waiting = [threading.Thread(target=take, args=(name,)) for name in "bcd"]
    with turns.turn():
        for number, thread in enumerate(waiting):
            thread.start()
            wait_until(lambda number=number: len(turns._waiting) > number)
    take("a")
    for thread in waiting:
        thread.join()
    assert had == ["b", "c", "d", "a"]


def test_a_turn_that_ends_in_an_error_is_over():
    turns = FairLock()
    with pytest.raises(ZeroDivisionError), turns.turn():
        raise ZeroDivisionError
    with turns.turn():
        pass


def test_who_waits_looks_now_and_then(monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    turns, looked = FairLock(), threading.Event()

    def wait():
        with turns.turn(looked.set):
            pass

    with turns.turn():
        thread = threading.Thread(target=wait)
        thread.start()
        assert looked.wait(10)
    thread.join()
