"""Erasures at their deadlines: when one is to be carried out, and a thread that has that done without being asked.

Who has the gallery open for writing does it; a service that reads the gallery opens it for writing for as long as that takes. Knows times
and whom to call; not how an erasure is carried out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from reid_ray.gallery.manifest import Erasure
from reid_ray.terminal.own_lines import say

# Of the time between request and deadline: when a writer begins, and a reader, which a writer has the chance to forestall.
WRITER_SHARE, READER_SHARE = 0.9, 0.95
_LOOK_S = 60.0  # the clock may be set, and other processes may ask for erasures
_AGAIN_S = 30.0  # after it failed


def is_due(erasure: Erasure, share: float) -> bool:
    """Whether `share` of an erasure's time is over by now."""
    return time.time() >= _due(erasure, share)


class ErasureTimer:
    """A thread that calls `carry_out` whenever an erasure is due, and again a while later if that fails.

    Args:
        erasures: gives what was asked for and is not yet carried out.
        carry_out: has it carried out.
        share: of an erasure's time after which it is due.
        gallery: what lines about it call the gallery.
        look_s: how often `erasures` is asked at least, seconds (60); `wake` has it asked at once.
    """

    def __init__(
        self,
        erasures: Callable[[], Sequence[Erasure]],
        carry_out: Callable[[], object],
        *,
        share: float,
        gallery: object,
        look_s: float | None = None,
    ) -> None:
        self._erasures, self._carry_out, self._share = erasures, carry_out, share
        self._gallery, self._look_s = gallery, look_s or _LOOK_S
        self._woken, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="gallery-erasures", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look again: an erasure was asked for."""
        self._woken.set()

    def close(self) -> None:
        """End the thread; what it has begun is done before this returns."""
        self._over = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over:
            self._woken.wait(self._done_and_wait())
            self._woken.clear()

    def _done_and_wait(self) -> float:
        """Carry out what is due; how long to wait then, seconds."""
        try:
            if any(is_due(each, self._share) for each in self._erasures()):
                self._carry_out()
            next_due = min((_due(each, self._share) for each in self._erasures()), default=float("inf"))
            return min(max(next_due - time.time(), 0.01), self._look_s)
        except Exception as error:  # noqa: BLE001 - whatever fails is said, and tried again: the thread must not end before its gallery does
            say(f"gallery: erasures of {self._gallery} are due and are not carried out yet; tried again in {_AGAIN_S:g} s ({error})")
            return _AGAIN_S


def _due(erasure: Erasure, share: float) -> float:
    return erasure.asked + share * (erasure.deadline - erasure.asked)
