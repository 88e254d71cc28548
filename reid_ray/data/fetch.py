"""Fetching and checking the images of records, in order, in parallel, within bounded memory.

Knows records and bytes; what is learnt from the bytes is the caller's `inspect`. On a local disk the work is decoding, which holds
Python's global lock, so processes do it; from an object store the work is waiting, so threads do, an image each. On a disk a few images
make one task; few tasks are in flight, and each stops reading at a byte budget, so that large pictures cannot pile up.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

from reid_ray.data.config import LoadConfig
from reid_ray.data.image_records import ImageRecord, Skipped, skipped
from reid_ray.data.images import BadImageError
from reid_ray.errors import DataError
from reid_ray.storage import sha256_of
from reid_ray.storage.file_systems import Store
from reid_ray.storage.regular_files import raise_if_system

_TASK_ROWS = 64
_TASK_BYTES = 8 << 20
_GRACE_S = 5.0  # a worker that is told to end leaves after so long
_TO_THE_JOB = (signal.SIGINT, signal.SIGTERM)
_INLINE_S = 1.0  # processes take about as long to start: what is read by then needs none

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A record with its bytes and what was learnt from them."""

    record: ImageRecord
    data: bytes
    sha256: str
    found: T


class _Wanted(NamedTuple):
    """What a worker needs of a record."""

    store: Store | None
    name: str | None
    data: bytes | None


class _Fetched(NamedTuple, Generic[T]):
    """What a worker found: bytes (None if the record had them already), digest and finding, or a reason and detail."""

    data: bytes | None
    sha256: str
    found: T | None
    problem: tuple[str, str] | None


def load_all(
    records: Iterable[ImageRecord | Skipped], inspect: Callable[[bytes], T], load: LoadConfig, *, remote: bool, max_bytes: int
) -> Iterator[Loaded[T] | Skipped]:
    """Each record with its bytes, in the records' order; one that cannot be used comes as Skipped with a reason.

    `inspect` (picklable) learns from the bytes what the caller wants to know and raises BadImageError for an image that cannot be
    used; a file beyond `max_bytes` is skipped as too_many_bytes. Other reasons: missing, unreadable_file, those of BadImageError.

    Raises:
        DataError: a worker process died.
        OSError: the system has no descriptor or memory left; that is no fault of the file that was next.
    """
    tasks = _tasks(iter(records), 1 if remote else _TASK_ROWS)
    started = time.monotonic()
    while not remote and time.monotonic() - started < _INLINE_S and (task := next(tasks, None)) is not None:
        yield from _finish(task, [], inspect, max_bytes)
    # A generator may be dropped half-way: the stack then closes the pool.
    with ExitStack() as stack:
        executor, in_flight = _executor(load, remote, stack)
        if executor is None:
            for task in tasks:
                yield from _finish(task, [], inspect, max_bytes)
            return
        waiting: deque[tuple[list[ImageRecord | Skipped], Future[list[_Fetched[T]]]]] = deque()
        stack.callback(lambda: [future.cancel() for _, future in waiting])
        try:
            while True:
                for task in islice(tasks, in_flight - len(waiting)):
                    with _signals_held():
                        waiting.append((task, executor.submit(_fetch_some, _wanted(task), inspect, max_bytes)))
                if not waiting:
                    return
                task, future = waiting.popleft()
                yield from _finish(task, future.result(), inspect, max_bytes)
        except BrokenProcessPool:
            raise DataError(
                "a process that reads images died, most likely for lack of memory; lower load.processes or source.max_pixels"
            ) from None


def _executor(load: LoadConfig, remote: bool, stack: ExitStack) -> tuple[Executor | None, int]:
    """Who fetches, and how many tasks it is given at a time; None: this thread."""
    if remote:
        return stack.enter_context(ThreadPoolExecutor(load.threads, thread_name_prefix="load")), 2 * load.threads
    processes = len(os.sched_getaffinity(0)) if load.processes is None else load.processes
    if not processes:
        return None, 0
    # spawn: the job may run threads of Ray or pyarrow, and a forked child can hang on their locks
    context = multiprocessing.get_context("spawn")
    return stack.enter_context(ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)), processes + 2


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that stop the job come after the block; a process that is started in it holds them until it can answer them."""
    came: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        # one that was not set from Python (None) could not be set again
        theirs = [number for number in _TO_THE_JOB if signal.getsignal(number) is not None]
        handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in theirs}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_THE_JOB)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _end_with_parent() -> None:
    """In a worker: leave when the job is killed, or the worker would wait for ever.

    A signal to the whole group of processes (Ctrl-C in a terminal, timeout) is the job's to answer: the worker goes on for as long as the
    job takes to stop it, else the job would see a broken pool instead of the signal.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    def leave_later(_: int, __: FrameType | None) -> None:
        timer = threading.Timer(_GRACE_S, os._exit, (1,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave_later)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_THE_JOB)
    threading.Thread(target=watch, daemon=True).start()


def _tasks(records: Iterator[ImageRecord | Skipped], rows: int) -> Iterator[list[ImageRecord | Skipped]]:
    """Records in tasks; the bytes that some carry count against the budget here already."""
    task: list[ImageRecord | Skipped] = []
    held = 0
    for record in records:
        task.append(record)
        held += len(record.data) if isinstance(record, ImageRecord) and record.data else 0
        if len(task) == rows or held >= _TASK_BYTES:
            yield task
            task, held = [], 0
    if task:
        yield task


def _wanted(task: Iterable[ImageRecord | Skipped]) -> list[_Wanted]:
    return [_Wanted(record.store, record.name, record.data) for record in task if isinstance(record, ImageRecord)]


def _finish(
    task: Sequence[ImageRecord | Skipped], fetched: list[_Fetched[T]], inspect: Callable[[bytes], T], max_bytes: int
) -> Iterator[Loaded[T] | Skipped]:
    """Join a task's records with what was fetched; what the byte budget left unread is read here."""
    images = [record for record in task if isinstance(record, ImageRecord)]
    arrived = iter(fetched)
    position = 0
    for record in task:
        if isinstance(record, Skipped):
            yield record
            continue
        item = next(arrived, None)
        if item is None:
            arrived = iter(_fetch_some(_wanted(images[position : position + _TASK_ROWS]), inspect, max_bytes))
            item = next(arrived)
        position += 1
        if item.problem is not None:
            yield skipped(record, *item.problem)
        else:
            data = record.data if item.data is None else item.data
            yield Loaded(record, data or b"", item.sha256, item.found)  # type: ignore[arg-type]


def _fetch_some(wanted: Sequence[_Wanted], inspect: Callable[[bytes], T], max_bytes: int) -> list[_Fetched[T]]:
    """Fetch until the byte budget is spent; at least one."""
    fetched: list[_Fetched[T]] = []
    held = 0
    for image in wanted:
        if held >= _TASK_BYTES:
            break
        fetched.append(_fetch(image, inspect, max_bytes))
        held += len(fetched[-1].data or b"")
    return fetched


def _fetch(image: _Wanted, inspect: Callable[[bytes], T], max_bytes: int) -> _Fetched[T]:
    try:
        data = _bytes_of(image, max_bytes)
        return _Fetched(None if image.data is not None else data, sha256_of(data), inspect(data), None)
    except BadImageError as error:
        return _Fetched(None, "", None, (error.reason, error.detail))


def _bytes_of(image: _Wanted, max_bytes: int) -> bytes:
    data = image.data
    if data is None:
        if image.store is None or image.name is None:
            raise BadImageError("missing", "the row has neither bytes nor a path")
        try:
            data = image.store.read_bytes(image.name, limit=max_bytes + 1)
        except FileNotFoundError:
            raise BadImageError("missing", "no such file") from None
        except OSError as error:
            raise_if_system(error)
            raise BadImageError("unreadable_file", str(error)) from None
    if len(data) > max_bytes:
        raise BadImageError("too_many_bytes", f"the file has more than {max_bytes} bytes, the most that is read of one")
    return data
