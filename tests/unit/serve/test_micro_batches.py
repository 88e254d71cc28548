"""Batches form while the worker is busy, nobody waits for a timer, and one bad question fails alone."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from reid_ray.serve.operations import micro_batches
from reid_ray.serve.operations.micro_batches import MicroBatcher


class Square:
    """Squares numbers; the first call waits until it is let go, so that a test decides what arrives meanwhile."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def __call__(self, numbers):
        assert self.go.wait(60)
        self.batches.append(list(numbers))
        if -1 in numbers:
            raise ValueError("minus one")
        return [number * number for number in numbers]


async def settled(tasks):
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)


def run(scenario, **options):
    square = Square()

    async def play():
        return await scenario(MicroBatcher(square, **options), square)

    return asyncio.run(play()), square.batches


def test_what_arrives_while_a_batch_is_at_work_forms_the_next_ones_up_to_the_limit():
    async def scenario(batcher, square):
        first = batcher.submit(0)
        await asyncio.sleep(0.1)
        later = [batcher.submit(number) for number in range(1, 11)]
        await asyncio.sleep(0.1)
        square.go.set()
        return await settled([first, *later])

    answers, batches = run(scenario, max_batch_size=4)
    assert answers == [number * number for number in range(11)]
    assert batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_who_comes_while_a_batch_is_late_is_told_that_all_that_follow_are(monkeypatch):
    clock = 100.0
    monkeypatch.setattr(micro_batches, "time", SimpleNamespace(perf_counter=lambda: clock))

    async def scenario(batcher, square):
        nonlocal clock
        square.go.set()
        answer = batcher.submit(0)
        await asyncio.sleep(0)
        clock += 0.5  # what a batch takes
        await answer
        square.go.clear()
        told, waiting = [batcher.wait_s()], [batcher.submit(number) for number in range(3)]  # one at work, two that wait
        await asyncio.sleep(0.05)
        for passed in (0.0, 0.25, 0.75, 60.0):
            clock += passed
            told.append(batcher.wait_s())
        square.go.set()
        await settled(waiting)
        return told

    told, _ = run(scenario, max_batch_size=1)
    assert told == pytest.approx([0.0, 2.0, 1.75, 3.0, 6.0])


def test_a_question_that_raises_fails_alone_and_the_rest_of_its_batch_is_answered():
    async def scenario(batcher, square):
        square.go.set()
        tasks = [batcher.submit(number) for number in (3, -1, 5)]
        answers = await settled(tasks)
        return [*answers, await batcher.submit(6)]

    answers, _ = run(scenario, max_batch_size=8)
    assert [answers[0], *answers[2:]] == [9, 25, 36]
    with pytest.raises(ValueError, match="minus one"):
        raise answers[1]


@pytest.mark.parametrize("given", [lambda numbers: numbers[:-1], lambda numbers: [*numbers, 7]], ids=["fewer", "more"])
def test_a_batch_that_gets_another_number_of_answers_gives_nobody_anothers(given):
    async def ask():
        batcher = MicroBatcher(lambda numbers: numbers if len(numbers) == 1 else given(numbers), max_batch_size=8)
        return await asyncio.wait_for(asyncio.gather(*(batcher.submit(number) for number in range(5))), 5)

    assert asyncio.run(ask()) == list(range(5))


def test_who_has_gone_is_not_answered_and_does_not_stop_the_others():
    async def scenario(batcher, square):
        first = batcher.submit(0)
        await asyncio.sleep(0.1)
        gone, stays = batcher.submit(1), batcher.submit(2)
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.sleep(0)
        square.go.set()
        return await settled([first, stays])

    answers, batches = run(scenario, max_batch_size=8)
    assert answers == [0, 4]
    assert batches == [[0], [2]]


def test_as_many_batches_are_at_work_at_one_time_as_there_are_lanes(monkeypatch):
    clock = 100.0
    monkeypatch.setattr(micro_batches, "time", SimpleNamespace(perf_counter=lambda: clock))

    async def scenario(batcher, square):
        nonlocal clock
        square.go.set()
        answer = batcher.submit(0)
        await asyncio.sleep(0)
        clock += 0.5  # what a batch takes
        await answer
        square.go.clear()
        told, answers = [], []
        for number in range(1, 6):
            told.append(batcher.wait_s())
            answers.append(batcher.submit(number))
            await asyncio.sleep(0.02)
            clock += 0.125
        told.append(batcher.in_hand)
        assert len(batcher) == 3  # two are at work
        square.go.set()
        return told, await settled(answers)

    (told, answers), batches = run(scenario, max_batch_size=1, lanes=2)
    # Nobody is there; one lane is free; the first ends in 0.25 s; the second in 0.25 s; the first has taken its time, and one is before.
    assert told == pytest.approx([0.0, 0.5, 0.25 + 0.5, 0.25 + 0.5, 0.0 + 0.5 + 0.5, 5])
    assert answers == [1, 4, 9, 16, 25]
    assert sorted(number for batch in batches for number in batch) == list(range(6))


def test_a_batch_is_as_large_as_its_requests_say_and_a_larger_one_is_alone():
    async def scenario(batcher, square):
        first = batcher.submit(1)
        await asyncio.sleep(0.05)
        later = [batcher.submit(number) for number in (2, 3, 1, 9, 1, 4)]
        await asyncio.sleep(0.05)
        square.go.set()
        return await settled([first, *later])

    answers, batches = run(scenario, max_batch_size=5, size=lambda number: number)
    assert answers == [1, 4, 9, 1, 81, 1, 16]
    assert batches == [[1], [2, 3], [1], [9], [1, 4]]


def test_who_is_not_answered_in_time_is_told_and_the_rest_are_answered():
    async def scenario(batcher, square):
        at_work = batcher.submit(0)
        await asyncio.sleep(0.15)  # another's time begins later
        waiting = batcher.submit(1)
        with pytest.raises(TimeoutError):
            await at_work
        assert not waiting.done()
        square.go.set()
        return await settled([waiting, batcher.submit(2)])

    assert run(scenario, max_batch_size=1, timeout_s=0.2) == ([1, 4], [[0], [1], [2]])


def test_who_was_told_that_it_is_too_late_takes_no_place_in_a_batch():
    async def scenario(batcher, square):
        late = [batcher.submit(number) for number in range(4)]
        told = await settled(late)
        square.go.set()
        return [type(each) for each in told], await batcher.submit(7)

    answers, batches = run(scenario, max_batch_size=1, timeout_s=0.05)
    assert answers == ([TimeoutError] * 4, 49)
    assert batches == [[0], [7]]
