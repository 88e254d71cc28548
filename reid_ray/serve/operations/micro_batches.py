"""Dynamic batching: requests that arrive together are answered together, and a lone one does not wait.

Knows asyncio and batches; not what is asked. While a batch is being answered, whatever arrives waits and forms the next one: an idle
service answers at once, a busy one in batches as large as its load. Ray Serve's own @serve.batch closes a batch when a timer runs
out, also while an earlier one is still at work, so that small batches queue up just when large ones would help, and a lone request
pays the timer; benchmarks/serving.py measures both.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from reid_ray.serve.client_presence import ClientGoneError, stays
from reid_ray.serve.operations.batch_times import BatchTimes
from reid_ray.serve.process.shared_timer import SharedTimer

_MOST_LATE = 4.0  # times as long as expected: that one batch stands still is not believed of all that follow

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, eq=False)
class _AtWork:
    """A batch that is being answered: how many requests, and since when."""

    size: int
    begun: float


class MicroBatcher(Generic[Request, Response]):
    """Dynamic batcher: calls `answer` in a thread, one batch at a time; all calls of `submit` must come from one event loop.

    Args:
        answer: requests -> as many answers, in order. If it raises, every request of the batch is tried alone, so that only the
            one at fault fails.
        max_batch_size: most requests in a batch, each counted as `size` says; a larger one is a batch by itself.
        lanes: batches at one time, each in a thread of its own: more than one where `answer` waits for others to work.
        size: how many requests one counts for.
        timeout_s: a request that is not answered in so long raises TimeoutError.
    """

    def __init__(
        self,
        answer: Callable[[list[Request]], Sequence[Response]],
        *,
        max_batch_size: int,
        lanes: int = 1,
        size: Callable[[Request], int] = lambda _: 1,
        timeout_s: float = math.inf,
    ) -> None:
        self._answer, self._max_batch_size, self._lanes, self._size = answer, max_batch_size, lanes, size
        self._waiting: deque[tuple[Request, asyncio.Future[Response], Callable[[], bool]]] = deque()
        self._workers: list[asyncio.Task[None]] = []
        self._at_work: list[_AtWork] = []
        self._times = BatchTimes()
        self._late: SharedTimer[asyncio.Future[Response]] | None = None if math.isinf(timeout_s) else SharedTimer(timeout_s, _give_up)
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="batches")

    def close(self) -> None:
        """End threads that are idle."""
        self._threads.shutdown(wait=False)

    def wait_s(self, before: int = 0) -> float:
        """How long a request that comes now, after `before` others that come, would wait for its answer, about, seconds.

        0 where nobody else is there: refused by what the last one took, a lone request would never show that it takes less by now.
        """
        waiting = len(self._waiting) + before
        if not self._at_work and not waiting:
            return 0.0
        batches, rest = divmod(waiting, self._max_batch_size)
        rounds, place = divmod(batches, self._lanes)
        following_s = rounds * self._times.of(self._max_batch_size) + self._times.of(rest + 1)
        free = [(0.0, 1.0)] * (self._lanes - len(self._at_work))
        left_s, late = (free + sorted(map(self._left, self._at_work)))[place]
        return left_s + following_s * late

    def _left(self, batch: _AtWork) -> tuple[float, float]:
        """How long a batch will take yet, about, seconds; and how many times as long as expected those that follow it will."""
        expected_s, passed_s = self._times.of(batch.size), time.perf_counter() - batch.begun
        if not expected_s:
            return 0.0, 1.0
        # A batch that is late says so of those that follow, before it has ended.
        return max(expected_s - passed_s, 0.0), min(max(1.0, passed_s / expected_s), _MOST_LATE)

    @property
    def in_hand(self) -> int:
        """Requests that are not answered yet."""
        return len(self._waiting) + sum(batch.size for batch in self._at_work)

    def __len__(self) -> int:
        """Requests that wait for a batch."""
        return len(self._waiting)

    def submit(self, request: Request, is_gone: Callable[[], bool] = stays) -> asyncio.Future[Response]:
        """The answer to one request, which waits from now on; raises what `answer` raises for it, or TimeoutError.

        Whoever goes cancels it, or `is_gone` says so by the time that its batch begins: then it raises ClientGoneError.
        """
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future, is_gone))
        if self._late is not None:
            self._late.begin(future)
        if len(self._workers) == self._lanes:
            self._workers = [each for each in self._workers if not each.done()]
        if len(self._workers) < self._lanes:
            self._workers.append(asyncio.create_task(self._work()))
        return future

    async def _work(self) -> None:
        while self._waiting:
            batch: list[tuple[Request, asyncio.Future[Response]]] = []
            left = self._max_batch_size
            while self._waiting and (not batch or left >= self._size(self._waiting[0][0])):
                request, future, is_gone = self._waiting.popleft()
                if future.done():  # whoever asked has gone
                    self._ended(future)
                elif is_gone():
                    self._ended(future)
                    future.set_exception(ClientGoneError())
                else:
                    batch.append((request, future))
                    left -= self._size(request)
            if batch:
                await self._resolve(batch)

    async def _resolve(self, batch: list[tuple[Request, asyncio.Future[Response]]]) -> None:
        try:
            with self._timed(len(batch)):
                answers = await asyncio.get_running_loop().run_in_executor(self._threads, self._answered, [request for request, _ in batch])
        except Exception as error:  # noqa: BLE001 - no thread is to be had; handed to whoever asked
            answers = error
        if isinstance(answers, Exception):
            if len(batch) > 1:
                for pair in batch:
                    if not pair[1].done():
                        await self._resolve([pair])
            else:
                self._ended(batch[0][1])
                if not batch[0][1].done():
                    batch[0][1].set_exception(answers)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            self._ended(future)
            if not future.done():
                future.set_result(answer)

    def _ended(self, future: asyncio.Future[Response]) -> None:
        if self._late is not None:
            self._late.end(future)

    @contextmanager
    def _timed(self, size: int) -> Iterator[None]:
        """Count a batch as being answered until the end of the block, and learn from how long that took."""
        batch = _AtWork(size, time.perf_counter())
        self._at_work.append(batch)
        try:
            yield
        finally:
            self._at_work.remove(batch)
            self._times.learn(size, time.perf_counter() - batch.begun)

    def _answered(self, requests: list[Request]) -> Sequence[Response] | Exception:
        """The answers, or why there are none, as a value: what a future cannot hold, or takes for its own end, would leave it waiting."""
        try:
            answers = self._answer(requests)
            if len(answers) != len(requests):
                return RuntimeError(f"{len(requests)} requests got {len(answers)} answers")
            return answers
        except BaseException as error:  # noqa: BLE001 - handed to whoever asked
            if isinstance(error, Exception) and not isinstance(error, StopIteration | TimeoutError):
                return error
            failure = RuntimeError(f"{type(error).__name__} came out of a batch")
            failure.__cause__ = error
            return failure


def _give_up(future: asyncio.Future[Response]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
