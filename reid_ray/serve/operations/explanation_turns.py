"""Explanations one after the other, beside the searches: each asks the encoder some fifty times, so few wait and none outlives who asked.

Knows turns and time; not what is explained.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from reid_ray.serve.client_presence import ClientGoneError, stays

Result = TypeVar("Result")
_WAITING = 4


class ManyExplanationsError(Exception):
    """As many explanations wait as may."""


class ExplanationTurns:
    """Runs explanations in a thread of its own, one at a time.

    Args:
        waiting: how many may wait for the one at work.
    """

    def __init__(self, waiting: int = _WAITING) -> None:
        self._waiting, self._in_hand = waiting, 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explanations")

    async def take(self, explain: Callable[[Callable[[], None]], Result], is_gone: Callable[[], bool] = stays) -> Result:
        """What `explain` returns; it is given a function to call now and then, which raises once whoever asked has left or `is_gone`.

        All calls must come from one event loop.

        Raises:
            ManyExplanationsError: too many wait.
            ClientGoneError: `is_gone`.
        """
        if self._in_hand > self._waiting:
            raise ManyExplanationsError
        left, loop = threading.Event(), asyncio.get_running_loop()

        def go_on() -> None:
            if left.is_set() or is_gone():
                raise ClientGoneError

        self._in_hand += 1
        working = self._thread.submit(explain, go_on)
        working.add_done_callback(lambda done: _tell(loop, self._ended, done))
        try:
            return await asyncio.wrap_future(working)
        finally:
            left.set()

    def close(self) -> None:
        """Forget what waits, and let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ended(self, _: Future) -> None:
        self._in_hand -= 1


def _tell(loop: asyncio.AbstractEventLoop, ended: Callable[[Future], None], done: Future) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(ended, done)
