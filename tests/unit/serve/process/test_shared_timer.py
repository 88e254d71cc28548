"""Each is late after its own time, whoever ended before it, and one timer of the loop is set for all."""

import asyncio

import pytest

from reid_ray.serve.process.shared_timer import SharedTimer

PATIENCE_S = 0.05


def test_each_is_late_after_its_own_time_and_who_ended_is_not():
    late = []

    async def scenario():
        loop = asyncio.get_running_loop()
        timer = SharedTimer(PATIENCE_S, lambda name: late.append((name, loop.time())))
        begun = {}
        for name in "abcde":
            begun[name] = loop.time()
            timer.begin(name)
            timer.begin(name)
            await asyncio.sleep(PATIENCE_S / 20)
        timer.end("b")
        timer.end("nobody")
        assert len(timer) == 4
        await asyncio.sleep(2 * PATIENCE_S)
        assert len(timer) == 0
        timer.begin("b")
        await asyncio.sleep(2 * PATIENCE_S)
        return begun

    begun = asyncio.run(scenario())
    assert [name for name, _ in late] == ["a", "c", "d", "e", "b"]
    assert all(at - begun[name] >= PATIENCE_S * 0.99 for name, at in late[:4])


def test_many_that_end_in_time_set_one_timer(monkeypatch):
    async def scenario():
        loop, timers = asyncio.get_running_loop(), []
        call_later = loop.call_later
        monkeypatch.setattr(loop, "call_later", lambda *words: timers.append(words) or call_later(*words))
        timer = SharedTimer(60, pytest.fail)
        for number in range(1000):
            timer.begin(number)
            timer.end(number)
        return len(timers), len(timer)

    assert asyncio.run(scenario()) == (1, 0)


def test_another_event_loop_begins_anew():
    late, timer = [], None

    async def scenario(name):
        nonlocal timer
        timer = timer or SharedTimer(0.01, late.append)
        timer.begin(name)
        if name == "second":
            await asyncio.sleep(0.05)

    asyncio.run(scenario("first"))  # whose loop ends before it is late
    asyncio.run(scenario("second"))
    assert late == ["second"]
