"""A change is made once a key, whoever asks again, and when: at once, later, another replica, after a kill."""

import asyncio
import json
import os
import time

import pytest
from refusals import refused

from reid_ray.errors import ConfigError
from reid_ray.serve.operations import remembered_answers
from reid_ray.serve.operations.remembered_answers import ChangeAnswer, RememberedAnswers
from reid_ray.serve.operations.writer_turns import BusyError
from reid_ray.storage.lock import this_process


class Counter:
    """A change that counts how often it was made."""

    def __init__(self, fail=None):
        self.count, self.fail, self.go = 0, fail, asyncio.Event()
        self.go.set()

    async def __call__(self):
        await self.go.wait()
        self.count += 1
        if self.fail is not None:
            raise self.fail
        return ChangeAnswer(200, {"made": self.count})


def ask(answers, change, key="k", request=None, of="me"):
    return answers.once(key, of=of, request=request or {"a": 1}, do=change)


def test_a_key_is_answered_the_same_by_every_replica_and_other_keys_and_callers_are_other_requests(tmp_path):
    async def run():
        change = Counter()
        for answers in (RememberedAnswers(tmp_path), RememberedAnswers(tmp_path)):
            assert (await ask(answers, change)).body == {"made": 1}
        assert (await ask(answers, change, key="other")).body == {"made": 2}
        assert (await ask(answers, change, of="you")).body == {"made": 3}
        assert (await ask(answers, change, key=None)).body == {"made": 4}
        with refused(ConfigError, "Idempotency-Key"):
            await ask(answers, change, request={"a": 2})

    asyncio.run(run())


def test_who_asks_again_meanwhile_waits_for_the_same_answer_and_another_replica_is_told_to_come_back(tmp_path):
    async def run():
        change = Counter()
        change.go.clear()
        here, there = RememberedAnswers(tmp_path), RememberedAnswers(tmp_path)
        asked = [asyncio.create_task(ask(here, change)) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(BusyError):
            await ask(there, change)
        change.go.set()
        assert [each.body for each in await asyncio.gather(*asked)] == [{"made": 1}] * 3

    asyncio.run(run())


@pytest.mark.parametrize("key", ["k", None])
def test_a_change_is_made_to_its_end_though_who_asked_has_gone(tmp_path, key):
    async def run():
        change = Counter()
        change.go.clear()
        answers = RememberedAnswers(tmp_path)
        asked = asyncio.create_task(ask(answers, change, key=key))
        await asyncio.sleep(0.1)
        asked.cancel()
        change.go.set()
        await asyncio.sleep(0.1)
        assert change.count == 1
        if key:
            assert (await ask(answers, change)).body == {"made": 1}

    asyncio.run(run())


def test_what_was_not_made_is_tried_again(tmp_path):
    async def run():
        answers = RememberedAnswers(tmp_path)
        with pytest.raises(BusyError):
            await ask(answers, Counter(BusyError("busy")))
        assert (await ask(answers, Counter())).body == {"made": 1}

    asyncio.run(run())


def test_a_change_whose_process_was_killed_is_made_again(tmp_path):
    async def run():
        answers, change = RememberedAnswers(tmp_path), Counter()
        await ask(answers, change)
        (path,) = tmp_path.iterdir()
        found = json.loads(path.read_text())
        gone = {"format": 1, "digest": found["digest"], "owner": {**this_process("change"), "started": "0"}}
        path.write_text(json.dumps(gone))
        assert (await ask(answers, change)).body == {"made": 2}
        path.write_text("{")  # torn
        assert (await ask(answers, change)).body == {"made": 3}

    asyncio.run(run())


def test_answers_are_forgotten_after_a_day(tmp_path):
    async def run():
        await ask(RememberedAnswers(tmp_path), Counter())
        for path in tmp_path.iterdir():
            old = time.time() - remembered_answers.KEPT_S - 1
            os.utime(path, (old, old))
        await ask(RememberedAnswers(tmp_path), Counter(), key="other")
        assert len(list(tmp_path.iterdir())) == 1

    asyncio.run(run())
