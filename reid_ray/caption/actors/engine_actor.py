"""Engine actor: what the Ray Data actors share that hold an engine. Tasks of rows in, the rows that they lacked out, durable in the ledger.

Ray Data calls an actor from several threads; all calls feed one engine (streaming/). Knows rows and the ledger; neither what is asked of
an engine nor which engine that is.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.engines.protocol import StreamingEngine
from reid_ray.caption.filters.faithfulness import FaithfulnessScorer
from reid_ray.caption.ledger.attempt_board import AttemptBoard, Rest, Suspicion
from reid_ray.caption.ledger.config import LedgerConfig
from reid_ray.caption.ledger.write_ahead_log import QUARANTINED, Ledger
from reid_ray.caption.live_metrics import LoadMetrics, LoadReporter
from reid_ray.caption.remote_board import RemoteBoard, this_device
from reid_ray.caption.streaming.admission import FREE, Admission
from reid_ray.caption.streaming.engine_loop import EngineLoop, how_it_hung
from reid_ray.caption.streaming.fair_lock import FairLock
from reid_ray.caption.streaming.group_commit import GroupCommit
from reid_ray.caption.streaming.in_flight import InFlightRecord, left_by
from reid_ray.caption.streaming.scoring_loop import ScoringLoop
from reid_ray.caption.streaming.stage_clock import STORAGE
from reid_ray.caption.streaming.work_stream import Rows, Work, WorkStream
from reid_ray.errors import ReidRayError

_RECORDS_KEPT_S = 7 * 86400.0
_LOOK_AGAIN_S = 0.5  # a broken actor, whether others work
_AHEAD = 1.5  # rows that are let in, per request that the engine decodes together: the rest is prepared while those run
# How long a thread keeps the interpreter from another, beside a GPU. The engine's gives it up at every operation and waits for it again:
# at Python's 5 ms, a picture that is prepared holds up a step many times over. Where the engine computes on the CPU, no device waits
# meanwhile, and to change threads so often only costs.
GPU_SWITCH_S = 0.0001


@dataclass(frozen=True)
class PassPlace:
    """Where the rows of a pass go, and who keeps account of its actors. Small, and safe to send to them.

    ledger: of this run.
    name: of the pass, for metrics.
    board: keeps the account of attempts and deaths; elsewhere, or in this process.
    config: of the ledger.
    """

    ledger: Ledger
    board: RemoteBoard | AttemptBoard
    config: LedgerConfig
    name: str = ""


@dataclass(frozen=True)
class RowTask:
    """One row's work before it is known whether it is to be done.

    ids: names of the rows that it may make; the first names it.
    """

    ids: Sequence[str]
    converse: Callable[[], Generator[Any, Any, Rows]]
    give_up: Callable[[str], Rows]
    texts: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Of the row."""
        return self.ids[0]


class CountsRows(Protocol):
    """Metrics of a stage."""

    def count(self, rows: pa.Table, seconds: float) -> None:
        """Count the rows that one batch made in so many seconds."""


class EngineActor:
    """What such actors share: an engine that is kept fed, rows that become durable in groups, and the account of deaths."""

    stage: ClassVar[str] = "engine"  # names the actors in metrics

    def __init__(
        self,
        place: PassPlace,
        metrics: CountsRows,
        *,
        start: Callable[[], tuple[StreamingEngine, FaithfulnessScorer | None]],
        requests: int,
        together: int = 1,
        most_bytes: int | None = None,
        preparing: int = 1,
        on_gpu: bool = False,
        turns: bool = False,
    ) -> None:
        clock = time.perf_counter()
        if on_gpu:
            sys.setswitchinterval(GPU_SWITCH_S)
        self._place, self._metrics = place, metrics
        self._actor = _actor_id()
        in_flight, traceback = (_records() / f"{place.ledger.run}-{self._actor}.{kind}" for kind in ("rows", "traceback"))
        hung = how_it_hung(traceback, timeout_s=place.config.batch_timeout_s)
        begun = place.board.begin(self._actor, left_by(in_flight), hung, this_device())
        self._broken = None if begun.broken is None or self._hand_back() == Rest.WORK else begun.broken
        if self._broken is not None:
            return
        engine, scorer = start()
        place.board.started(self._actor)
        self._earlier = place.ledger.blocks_of(self._actor) if begun.again else place.ledger.form.schema.empty_table()
        self._loop = EngineLoop(
            engine,
            together=together,
            timeout_s=place.config.batch_timeout_s,
            traceback=traceback,
            explain=self._explain,
            turns=FairLock() if turns else None,
        )
        gate = Admission(max(1, int(_AHEAD * engine.capacity / requests)), -(-engine.capacity // requests), most_bytes, preparing)
        scoring = None if scorer is None else ScoringLoop(scorer, die=self._die)
        self._numbers = itertools.count()
        self._commit = GroupCommit(self._write, rows=place.config.group_rows, seconds=place.config.group_seconds)
        record = InFlightRecord(in_flight)
        self._stream = WorkStream(self._loop, scoring, gate=gate, record=record, flush=self._commit.flush, explain=self._explain)
        self._load = LoadReporter(self._stream.account, place.board, self._actor, LoadMetrics(self.stage, place.name))
        self._startup: float | None = time.perf_counter() - clock

    def _run(self, tasks: Sequence[RowTask]) -> pa.Table:
        """Rows of tasks, durable; none by a broken actor, whose tasks are handed back undone."""
        clock = time.perf_counter()
        board, rows_there = self._place.board, self._made_before(tasks)
        there = set(rows_there[self._place.ledger.form.name].to_pylist())
        todo = {task.name: task for task in tasks if there.isdisjoint(task.ids)}
        verdicts: Suspicion = board.take(self._actor, list(todo))
        made: Rows = []
        group = -1

        def keep(rows: Rows) -> None:
            nonlocal group
            self._stamp(rows)
            made.extend(rows)
            group = self._commit.add(rows)

        for name, why in verdicts.given_up.items():
            keep(todo.pop(name).give_up(f"{QUARANTINED}: {why}"))
        works = [Work(name, task.converse, task.texts, verdicts.groups.get(name, FREE)) for name, task in todo.items()]
        try:
            self._stream.run(works, lambda _, rows: keep(rows))
        except ReidRayError:
            self._commit.flush()  # what was finished is not made again
            raise
        with self._loop.clock.at(STORAGE):
            self._commit.wait(group)
        board.done(self._actor, [task.name for task in tasks])
        self._load.tell()
        table = self._table(made)
        self._metrics.count(table, time.perf_counter() - clock)
        return pa.concat_tables([rows_there, table]).combine_chunks()

    def _made_before(self, tasks: Sequence[RowTask]) -> pa.Table:
        """What this actor made of them before it died; a task's rows become durable together."""
        ids = pa.array([name for task in tasks for name in task.ids], pa.string())
        return self._earlier.filter(pc.is_in(self._earlier[self._place.ledger.form.name], ids))

    def _hand_back(self) -> Rest:
        """Return when a broken actor is to do something: Ray Data hands none more meanwhile, for it is starting, or has enough."""
        while (rest := self._place.board.rest(self._actor)) == Rest.WAIT:
            time.sleep(_LOOK_AGAIN_S)
        return rest

    def _stamp(self, rows: Rows) -> None:
        seconds = self._loop.take_busy_seconds()
        for row in rows:
            row["seconds"] = seconds / len(rows)
        if rows and self._startup is not None:
            rows[0]["startup_seconds"], self._startup = self._startup, None

    def _table(self, rows: Rows) -> pa.Table:
        return self._place.ledger.form.table(rows, self._place.ledger.run)

    def _write(self, rows: Rows) -> None:
        table = self._table(rows)
        self._place.ledger.commit(f"{self._actor}-{next(self._numbers)}-{time.time_ns()}", table)
        asked = pc.sum(pc.greater(table["tries"], 0)).as_py() or 0  # a broken engine has no part in what was never asked
        if asked:
            self._place.board.made(self._actor, asked)

    def _die(self, error: Exception, texts: Sequence[str]) -> None:
        self._stream.die(error, texts)

    def _explain(self, reason: str) -> None:
        self._place.board.explain(self._actor, reason)


def _records() -> Path:
    """Folder of this node's in-flight records and tracebacks; those that nobody wrote for a week go."""
    folder = Path(tempfile.gettempdir()) / f"reid-ray-in-flight-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another actor removes it, too
            if file.stat().st_mtime < time.time() - _RECORDS_KEPT_S:
                file.unlink()
    return folder


def _actor_id() -> str:
    """Of the Ray actor that this process is, the same after it is started again; of the process itself where it is none."""
    import ray

    return (ray.get_runtime_context().get_actor_id() if ray.is_initialized() else None) or f"process-{os.getpid()}"
