"""Answering questions together that arrive together, without making a lone one wait.

Knows asyncio and batches; not what is asked. While a batch is being answered, whatever arrives waits and forms the next one: an idle
service answers at once, a busy one in batches as large as its load. Ray Serve's own @serve.batch closes a batch when a timer runs
out, also while an earlier one is still at work, so that small batches queue up just when large ones would help, and a lone question
pays the timer; benchmarks/serving.py measures both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """Calls `answer` in a thread, one batch at a time; all calls of `ask` must come from one event loop.

    Args:
        answer: questions -> as many answers, in order. If it raises, every question of the batch is tried alone, so that only the
            one at fault fails.
        max_batch_size: most questions in a batch.
    """

    def __init__(self, answer: Callable[[list[Question]], Sequence[Answer]], *, max_batch_size: int) -> None:
        self._answer, self._max_batch_size = answer, max_batch_size
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer to one question; raises what `answer` raises for it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch: list[tuple[Question, asyncio.Future[Answer]]] = []
            while self._waiting and len(batch) < self._max_batch_size:
                question, future = self._waiting.popleft()
                if not future.done():  # else whoever asked has gone
                    batch.append((question, future))
            if batch:
                await self._settle(batch)

    async def _settle(self, batch: list[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await asyncio.to_thread(self._answer, [question for question, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} questions got {len(answers)} answers")
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            if len(batch) > 1:
                for pair in batch:
                    await self._settle([pair])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
