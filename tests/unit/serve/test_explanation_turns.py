"""Explanations take turns: one at a time, few wait, and one that nobody waits for ends at its next step."""

from __future__ import annotations

import asyncio
import threading

import pytest

from reid_ray.serve.operations.explanation_turns import ExplanationTurns, ManyExplanationsError


class Steps:
    """An explanation of steps, each of which waits to be allowed."""

    def __init__(self):
        self.allowed, self.at_work, self.most, self.steps = threading.Event(), 0, 0, 0

    def explain(self, go_on):
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            for _ in range(3):
                assert self.allowed.wait(30)
                go_on()
                self.steps += 1
            return "explained"
        finally:
            self.at_work -= 1


def test_one_is_at_work_two_wait_and_a_fourth_is_refused():
    async def ask():
        turns, work = ExplanationTurns(waiting=2), Steps()
        asked = [asyncio.create_task(turns.take(work.explain)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ManyExplanationsError):
            await turns.take(work.explain)
        work.allowed.set()
        assert await asyncio.gather(*asked) == ["explained"] * 3
        assert work.most == 1
        assert await turns.take(work.explain) == "explained"
        turns.close()

    asyncio.run(ask())


def test_who_leaves_gives_the_turn_to_the_next_and_a_failure_is_its_own():
    async def ask():
        turns, work = ExplanationTurns(waiting=2), Steps()
        left = asyncio.create_task(turns.take(work.explain))
        waits = asyncio.create_task(turns.take(work.explain))
        while not work.at_work:
            await asyncio.sleep(0.001)
        left.cancel()
        waits.cancel()
        await asyncio.gather(left, waits, return_exceptions=True)
        work.allowed.set()
        with pytest.raises(ZeroDivisionError):
            await turns.take(lambda go_on: 1 / 0)
        assert work.steps == 0, "the first one went on, or the second one began"
        assert await turns.take(work.explain) == "explained"
        turns.close()

    asyncio.run(ask())
