"""Poison-row quarantine: a row that kills its process is found by bisection, given up with the reason, and not retried for ever.

Knows batches, attempt markers on disk and deaths; not what the work is. Ray restarts an actor that dies and hands it the same rows, for
ever if one of them is what kills it. So a marker is written before each call and removed after it, and an actor that finds a marker knows
that the last attempt died there: a batch is then divided into halves, a half into single rows, and a row that dies twice on its own is
quarantined. One such row costs four restarts, and its neighbours are done as if it were not there.

A call that hangs is ended by a watchdog: Python's faulthandler ends the process when its time is up, from a thread of its own that needs
no interpreter lock, and its traceback, which is the reason, lies beside the marker.
"""

from __future__ import annotations

import faulthandler
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from reid_ray.caption.ledger.content_keys import digest
from reid_ray.caption.ledger.write_ahead_log import ROWS, Ledger
from reid_ray.errors import ReidRayError, reason_of
from reid_ray.redaction import without_texts
from reid_ray.storage import write_bytes

_DEATHS_ALONE = 2
_STARTS = 8  # an engine that dies so often before it serves anything never will
_GIVEN_UP_IN_A_ROW = 16  # then the engine is at fault, not the rows
_EXIT_CODE = 70


class EngineDownError(ReidRayError):
    """The engine itself does not work: it dies at its start, or on every row."""


Work = Callable[[pa.Table], pa.Table]
GiveUp = Callable[[pa.Table, str], pa.Table]


class PoisonRowGuard:
    """Runs batches so that a poison row, one that kills the process, is found and quarantined.

    Args:
        ledger: where blocks are committed and attempt markers lie.
        stage: names this stage's markers and blocks; another model is another stage.
        timeout_s: what one call may take.
    """

    def __init__(self, ledger: Ledger, *, stage: str, timeout_s: float) -> None:
        self._ledger, self._stage, self._timeout_s = ledger, stage, timeout_s

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Guard the engine's start: crashes of it are counted.

        Raises:
            EngineDownError: it died in its last starts, all of them.
        """
        mark = _AttemptMarker(self._ledger, digest(self._stage, "start"), of_run=True)
        deaths = mark.deaths()
        if len(deaths) >= _STARTS:
            raise EngineDownError(f"an engine died in each of its last {len(deaths)} starts; the last time: {deaths[-1]}")
        mark.set()
        yield
        mark.clear()

    def run(self, rows: pa.Table, names: Sequence[str], *, work: Work, give_up: GiveUp) -> pa.Table:
        """The LEDGER rows of a batch, each part of it committed as soon as it is done.

        Args:
            rows: the batch, at least one row.
            names: what each row is about, the same in every process and run.
            work: rows -> LEDGER rows; may raise or die.
            give_up: one row and the reason -> its failed LEDGER rows; must not touch an engine.
        """
        # A row that an earlier run gave up must not take others with it. (One of this run stays: other rows in a batch, another marker.)
        suspects = [at for at, name in enumerate(names) if rows.num_rows > 1 and self._marker([name]).given_up_before()]
        others = sorted(set(range(rows.num_rows)) - set(suspects))
        parts = [[at] for at in suspects] + ([others] if others else [])
        return pa.concat_tables(
            [self._part(rows.take(part), [names[at] for at in part], depth=0, work=work, give_up=give_up) for part in parts]
        )

    def _part(self, rows: pa.Table, names: Sequence[str], *, depth: int, work: Work, give_up: GiveUp) -> pa.Table:
        block = digest(self._ledger.run, self._stage, *names)
        earlier = self._ledger.committed(block)
        if earlier is not None:  # it was committed, and the process died before it said so
            return earlier
        mark = self._marker(names)
        if rows.num_rows == 1:
            # A row that an earlier run gave up gets one more try.
            deaths = mark.deaths()
            if len(deaths) >= (1 if mark.given_up_before() else _DEATHS_ALONE):
                self._count_given_up(deaths[-1])
                table = give_up(rows, deaths[-1])
                self._ledger.commit(block, table)
                mark.give_up()
                return table
        elif mark.exists():
            size = -(-rows.num_rows // 2) if depth == 0 else 1
            starts = range(0, rows.num_rows, size)
            # The marker stays: should a later part kill the process, this one must not be tried whole again.
            return pa.concat_tables(
                [self._part(rows.slice(at, size), names[at : at + size], depth=depth + 1, work=work, give_up=give_up) for at in starts]
            )
        mark.set()
        table = self._watched(rows, mark, work)
        self._ledger.commit(block, table)
        mark.clear()
        self._streak.unlink(missing_ok=True)
        return table

    def _watched(self, rows: pa.Table, mark: _AttemptMarker, work: Work) -> pa.Table:
        with mark.traceback.open("w") as traceback:
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=traceback)
            try:
                return work(rows)
            except ReidRayError:
                raise
            except Exception as error:  # noqa: BLE001
                # An engine that raised in the midst of a batch is in no known state: it ends like one that died, with its reason.
                mark.explain(without_texts(reason_of(error), _texts(rows)))
                os._exit(_EXIT_CODE)
            finally:
                faulthandler.cancel_dump_traceback_later()

    def _marker(self, names: Sequence[str]) -> _AttemptMarker:
        return _AttemptMarker(self._ledger, digest(self._stage, *names), of_run=len(names) > 1, timeout_s=self._timeout_s)

    @property
    def _streak(self) -> Path:
        return self._ledger.attempts / self._ledger.run / "given-up-in-a-row"

    def _count_given_up(self, reason: str) -> None:
        with self._streak.open("a") as streak:
            streak.write("x")
            if streak.tell() > _GIVEN_UP_IN_A_ROW:
                raise EngineDownError(
                    f"{_GIVEN_UP_IN_A_ROW} rows in a row ended their engine, so it is not the rows; the last time: {reason}"
                )


def _texts(rows: pa.Table) -> list[str]:
    """The private texts of a batch, which an engine's error message may quote and a log must not."""
    return [text for text in rows["text"].to_pylist() if text] if "text" in rows.column_names else []


class _AttemptMarker:
    """Attempt marker: a file that says that an attempt has begun. Left behind, it means that the process died, and may say how.

    Markers of batches belong to one run, which divides its images as it likes; markers of single rows outlive it.
    """

    def __init__(self, ledger: Ledger, name: str, *, of_run: bool, timeout_s: float = 0.0) -> None:
        folder = ledger.attempts / (ledger.run if of_run else ROWS)
        self._path, self.traceback = folder / f"{name}.json", folder / f"{name}.traceback"
        self._run, self._timeout_s = ledger.run, timeout_s

    def exists(self) -> bool:
        """Whether an attempt began and was not finished, or the row was given up."""
        return self._path.exists()

    def deaths(self) -> list[str]:
        """The reasons of the deaths in this run, the last one last."""
        return [death["reason"] for death in self._state()["deaths"] if death["run"] == self._run]

    def given_up_before(self) -> bool:
        """Whether an earlier run gave the row up."""
        return any(run != self._run for run in self._state()["given_up_by"])

    def set(self) -> None:
        """Begin an attempt."""
        # No fsync: a marker must outlive its process, not the machine's power.
        self._write(self._state() | {"open": self._run})

    def explain(self, reason: str) -> None:
        """Say why the attempt is about to end in a death."""
        state = self._state(reason)
        self._write(state)

    def give_up(self) -> None:
        """Remember that the row was given up."""
        state = self._state()
        self._write(state | {"given_up_by": [*state["given_up_by"][-1:], self._run]})

    def clear(self) -> None:
        """The attempt came to its end."""
        self._path.unlink(missing_ok=True)
        self.traceback.unlink(missing_ok=True)

    def _state(self, reason: str | None = None) -> dict[str, Any]:
        """What is on disk, an attempt left open counted as a death."""
        try:
            state: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"deaths": [], "open": None, "given_up_by": []}
        if state["open"] is not None:
            state["deaths"].append({"run": state["open"], "reason": " ".join((reason or self._how_it_died()).split())[:300]})
            state["open"] = None
        return state

    def _how_it_died(self) -> str:
        stack = self.traceback.read_text(encoding="utf-8", errors="replace") if self.traceback.exists() else ""
        if not stack:
            return "the process died without a word (killed, out of memory or crashed)"
        frames = [line.strip() for line in stack.splitlines() if line.strip().startswith("File ")]
        return f"timed out after {self._timeout_s:g} s in {frames[0] if frames else 'an unknown place'}"

    def _write(self, state: dict[str, Any]) -> None:
        write_bytes(self._path, json.dumps(state).encode())
