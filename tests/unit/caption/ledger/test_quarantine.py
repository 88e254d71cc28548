"""Who is to blame for a death: how many are allowed, what a streak of them says of the engine, and which word is left behind.

A death is an exception that nothing catches, so marks stay as when a process is killed; test_write_ahead_log.py kills real ones.
"""

from __future__ import annotations

import contextlib
import multiprocessing

import pyarrow as pa
from refusals import refused

from reid_ray.caption.ledger.quarantine import EngineDownError, PoisonRowGuard
from reid_ray.caption.ledger.row_keys import key_of
from reid_ray.caption.ledger.write_ahead_log import Ledger, ledger_table, open_ledger
from reid_ray.caption.rows import staged_table


class Death(BaseException):
    """What no handler catches."""


class Batch:
    """Works on numbers; dies on those of `deadly` as often as they say."""

    def __init__(self, ledger: Ledger, deadly: dict[int, int] | None = None) -> None:
        self.ledger, self.deadly, self.worked = ledger, dict(deadly or {}), []
        self.attempts = PoisonRowGuard(ledger, stage="test", timeout_s=60)

    def run(self, *numbers: int) -> list[str | None]:
        """Try until the batch comes to its end; the reasons of its rows."""
        while True:
            with contextlib.suppress(Death):
                table = pa.table({"number": list(numbers)})
                done = self.attempts.run(table, [str(number) for number in numbers], work=self._work, give_up=self._give_up)
                return done["reason"].to_pylist()

    def _work(self, rows: pa.Table) -> pa.Table:
        for number in rows["number"].to_pylist():
            self.worked.append(number)
            if self.deadly.get(number, 0) > 0:
                self.deadly[number] -= 1
                raise Death
        return self._rows(rows, None)

    def _give_up(self, rows: pa.Table, why: str) -> pa.Table:
        return self._rows(rows, why)

    def _rows(self, rows: pa.Table, why: str | None) -> pa.Table:
        numbers = rows["number"].to_pylist()
        staged = [
            {"caption_id": f"{n}", "image_id": "i", "kind": "static", "status": "failed" if why else "ok", "reason": why} for n in numbers
        ]
        return ledger_table(staged_table(staged), [key_of(number) for number in numbers], self.ledger.run)


def start(ledger: Ledger, *, dies: bool) -> None:
    """An engine's start."""
    with contextlib.suppress(Death), PoisonRowGuard(ledger, stage="test", timeout_s=1).starting():
        if dies:
            raise Death


def test_an_engine_may_die_seven_times_at_its_start_and_not_eight(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        for _ in range(7):
            start(ledger, dies=True)
        start(ledger, dies=False)  # the eighth comes up, and what was before is forgotten
        for _ in range(8):
            start(ledger, dies=True)
        with refused(EngineDownError, "8 starts"):
            start(ledger, dies=False)


def test_a_row_may_kill_its_process_once_and_not_twice(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        assert Batch(ledger, {1: 1}).run(1) == [None]
        (reason,) = Batch(ledger, {2: 2}).run(2)
        assert "died without a word" in reason


def test_sixteen_rows_given_up_in_a_row_are_borne_and_a_good_one_begins_the_count_anew(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        batch = Batch(ledger, dict.fromkeys(range(40), 2))
        for number in range(16):
            assert batch.run(number) != [None]
        assert batch.run(99) == [None]
        for number in range(16, 32):
            assert batch.run(number) != [None]
        with refused(EngineDownError, "16 rows"):
            batch.run(33)


def test_a_batch_that_was_committed_is_not_asked_again_though_the_word_of_it_was_lost(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        Batch(ledger).run(1, 2, 3)
        again = Batch(ledger)
        assert again.run(1, 2, 3) == [None] * 3
        assert again.worked == []


def test_an_exception_ends_the_process_and_its_words_are_the_reason(tmp_path):
    with open_ledger(tmp_path / "out") as ledger:
        batch = Batch(ledger)

        def raising(_: pa.Table) -> pa.Table:
            raise RuntimeError("the engine core is dead")

        def attempt() -> None:
            batch.attempts.run(pa.table({"number": [7]}), ["7"], work=raising, give_up=batch._give_up)

        for _ in range(2):
            process = multiprocessing.get_context("fork").Process(target=attempt)
            process.start()
            process.join()
            assert process.exitcode == 70
        (reason,) = batch.run(7)
        assert reason == "RuntimeError: the engine core is dead"
