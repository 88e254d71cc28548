"""Resumable parallel map over stretches of a table: by Ray tasks, or threads here, each result a numbered Arrow file that appears whole.

Stretches are cut by the table alone, so files and their contents are the same however many are worked on at once. A task reads and works
where the cluster has room and hands its rows on batch by batch; the driver alone writes, so that no folder need be shared, and holds a few
batches of each. A finished stretch is kept: who does the same again goes on with the others. Knows stretches and files; not what a row is.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from reid_ray.storage import write_durably, write_json

S = TypeVar("S")
# What is done with a stretch: (what all have in common, the stretch) -> record batches, and in the end facts that JSON can hold.
Work = Callable[[Any, S], Generator[pa.RecordBatch, None, dict[str, Any]]]
Run = Callable[[S], Iterator[pa.RecordBatch | dict[str, Any]]]
_THREADS, _TASKS = 4, 32
_AHEAD = 2  # batches of a task that wait in the object store


@dataclass(frozen=True)
class Spread:
    """Where stretches are worked on, and how many at once.

    by_tasks: in Ray tasks of one CPU each, else in this process; a single stretch is always worked on here.
    """

    at_once: int = _THREADS
    by_tasks: bool = False

    def write(self, folder: Path, schema: pa.Schema, work: Work[S], common: Any, stretches: Sequence[S]) -> list[dict[str, Any]]:
        """Work on every stretch that is not finished. Its batches are in folder/NNNNN.arrow then, its facts in folder/NNNNN.json.

        Args:
            folder: made if it is not there; finished files in it are of the same work on the same stretches.
            schema: of the batches.
            work: what to do; the same in any process.
            common: its first argument, sent to a node once.
            stretches: each its second argument.

        Returns:
            The facts of all stretches, in their order.
        """
        folder.mkdir(exist_ok=True)
        open_ = [number for number in range(len(stretches)) if not _facts(folder, number).is_file()]
        run = (_in_tasks if self.by_tasks and len(open_) > 1 else _here)(work, common)

        over = threading.Event()

        def finish(number: int) -> None:
            _write_stretch(folder, number, schema, _until(over, run(stretches[number])))

        with ThreadPoolExecutor(max(1, min(self.at_once, len(open_))), thread_name_prefix="spread") as pool:
            try:
                for done in as_completed([pool.submit(finish, number) for number in open_]):
                    done.result()
            finally:  # nobody waits for the rest after an error, or after an interruption
                over.set()
                pool.shutdown(wait=True, cancel_futures=True)
        return [json.loads(_facts(folder, number).read_text(encoding="utf-8")) for number in range(len(stretches))]


def over_the_cluster() -> Spread:
    """Ray tasks on all CPUs of the cluster that this process is in, 32 at most; threads here if it is in none."""
    import ray

    if not ray.is_initialized():
        return Spread()
    cpus = sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    return Spread(at_once=max(1, min(_TASKS, int(cpus))), by_tasks=True)


def begin_anew(folder: Path) -> None:
    """Remove all that `write` left in a folder, and the folder; or the file of that name that an older version wrote."""
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """Remove the facts of finished stretches; their rows stay."""
    for file in folder.glob("*.json"):
        file.unlink()


def _facts(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.json"


def _items(work: Work[S], common: Any, stretch: S) -> Iterator[pa.RecordBatch | dict[str, Any]]:
    """The batches of a stretch, then its facts."""
    working = work(common, stretch)
    while True:  # not `yield from`: Ray sends values into a task's generator, which not everything that is yielded from takes
        try:
            batch = next(working)
        except StopIteration as end:
            yield end.value
            return
        yield batch


def _until(over: threading.Event, items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        if over.is_set():
            raise InterruptedError
        yield item


def _here(work: Work[S], common: Any) -> Run[S]:
    return partial(_items, work, common)


def _in_tasks(work: Work[S], common: Any) -> Run[S]:
    import ray
    from ray.exceptions import RayTaskError

    options = {"num_cpus": 1, "num_returns": "streaming", "_generator_backpressure_num_objects": _AHEAD}
    task = ray.remote(_items).options(**options)
    sent_work, sent = ray.put(work), ray.put(common)

    def run(stretch: S) -> Iterator[pa.RecordBatch | dict[str, Any]]:
        try:
            for reference in task.remote(sent_work, sent, stretch):
                yield ray.get(reference)
        except RayTaskError as error:
            raise error.cause from None

    return run


def _write_stretch(folder: Path, number: int, schema: pa.Schema, items: Iterator[pa.RecordBatch | dict[str, Any]]) -> None:
    facts: dict[str, Any] = {}

    def write(file: Path) -> None:
        with pa.OSFile(os.fspath(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for item in items:
                if isinstance(item, dict):
                    facts.update(item)
                elif item.num_rows:
                    writer.write_batch(item)

    write_durably(folder / f"{number:05d}.arrow", write)
    write_json(_facts(folder, number), facts)
