"""Replicas of a service that go over to a newer generation of their gallery together: each prepares it beside its searches, then all flip.

Within a generation every replica follows the log by itself. Where a newer generation counts, a replica opens it and says so; once all that
gave a sign of life lately have done it, or the slowest was waited for long enough, each takes it at its next look, a tenth of a second
later at most. Searches that have begun end on what they began with; then that is let go. What a newer generation deletes or erases is
hidden at the next look already, while it is opened and waited for. Knows galleries and time; not Ray.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from reid_ray.errors import ReidRayError
from reid_ray.gallery.gallery_reader import OtherEncoderError
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.shards.share import NOTHING

_LOOK_EVERY_S = 0.1
_TOLD_WITHIN_S = 0.02  # whose turn it is: longer no look waits for it, for what is deleted meanwhile is to be hidden
_NOT_KNOWN = -1  # yet: before any generation
_SILENT_S = 0.5  # after which nobody waits for who should say whose turn it is
_LOG = logging.getLogger(__name__)


class TurnKeeper(Protocol):
    """Interface (protocol) of who knows whose turn it is."""

    def report(self, replica: str, prepared: int) -> int:
        """Say which generation a replica could serve; returns the newest one that all may serve."""
        ...


@dataclass
class GenerationTurns:
    """Which generation all replicas may serve.

    wait_s: how long one that has not prepared it is waited for: short, for the newer generation alone has what is added meanwhile.
    gone_s: one that has given no sign of life for so long is not waited for.
    """

    wait_s: float = 0.8
    gone_s: float = 2.0
    clock: Callable[[], float] = time.monotonic
    _turn: int = 0
    _seen: dict[str, tuple[float, int]] = field(default_factory=dict)
    _waiting_since: float | None = None

    def report(self, replica: str, prepared: int) -> int:
        """As TurnKeeper."""
        now = self.clock()
        self._seen[replica] = (now, prepared)
        self._seen = {name: seen for name, seen in self._seen.items() if now - seen[0] <= self.gone_s}
        generations = [generation for _, generation in self._seen.values()]
        if max(generations) <= self._turn:
            self._waiting_since = None
            return self._turn
        if self._waiting_since is None:
            self._waiting_since = now
        ready = min(generations)
        if ready <= self._turn and now - self._waiting_since > self.wait_s:
            ready = max(generations)
        if ready > self._turn:
            self._turn, self._waiting_since = ready, None
        return self._turn


class FlippingView:
    """A gallery that a thread follows, and that goes over to a newer generation when it is its turn.

    Args:
        folder: the gallery's folder or address.
        turns: whose turn it is; where it fails or is silent that is logged, and the newest generation taken.
        name: of this replica.
        encoder, device: as GalleryView has them.

    Raises:
        DataError: the folder holds no gallery, or a damaged one.
    """

    def __init__(self, folder: str | Path, turns: TurnKeeper, *, name: str, encoder: str | None = None, device: str | None = None) -> None:
        self._turns, self._name = turns, name
        self._open = partial(GalleryView, folder, encoder=encoder, device=device)
        self._folder, self._view = folder, self._open()
        self._refused: OtherEncoderError | None = None
        self._coming: _Coming | None = None
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="next-generation")
        self._asker = ThreadPoolExecutor(1, thread_name_prefix="generation-turns")
        self._asked: tuple[Future[int], float] | None = None  # and since when
        self._holders: dict[int, int] = {}  # searches by the view that they hold
        self._left: dict[int, GalleryView] = {}  # views that nobody begins a search on any more
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="generations", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def held(self) -> Iterator[GalleryView]:
        """What is served now, which stays open until the end of the block."""
        if self._refused is not None:
            raise OtherEncoderError(str(self._refused))
        with self._lock:
            view = self._view
            self._holders[id(view)] = self._holders.get(id(view), 0) + 1
        try:
            yield view
        finally:
            with self._lock:
                self._holders[id(view)] -= 1
                self._let_go()

    def close(self) -> None:
        """End its threads."""
        self._ended.set()
        self._thread.join()
        self._opener.shutdown(cancel_futures=True)
        self._asker.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """See what was written since, and flip if it is time; what the thread does all the while."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        if self._coming is None:
            if self._view.follow():
                self._report(self._view.generation)
                return
            self._coming = _Coming(self._folder, self._view, self._opener.submit(self._open))
        coming = self._coming
        try:
            coming.hide_removed()
            prepared = coming.opened(_LOOK_EVERY_S)
        except BaseException as error:
            self._refused = error if isinstance(error, OtherEncoderError) else self._refused
            self._coming = None  # tried anew at the next look
            coming.close()
            raise
        if prepared is not None:
            self._refused = None
        if prepared is None:
            self._report(self._view.generation)
            return
        turn = self._report(prepared.generation)
        if turn >= prepared.generation or coming.has_gaps:
            with self._lock:
                self._left[id(self._view)], self._view, self._coming = self._view, prepared, None
                self._let_go()
            coming.close()

    def _report(self, prepared: int) -> int:
        """The newest generation that may be served, as far as it is known by now; asked beside the looks, which go on meanwhile."""
        if self._asked is None:
            self._asked = self._asker.submit(self._turns.report, self._name, prepared), time.monotonic()
        answer, since = self._asked
        wait([answer], _TOLD_WITHIN_S)
        if not answer.done():
            return prepared if time.monotonic() - since > _SILENT_S else _NOT_KNOWN
        self._asked = None
        try:
            return answer.result()
        except Exception as error:  # noqa: BLE001 - whatever keeps the turns may be lost; serving goes on without it
            _LOG.warning("whose turn it is cannot be asked (%s); the newest generation is served", type(error).__name__)
            return prepared

    def _let_go(self) -> None:
        for number in [number for number in self._left if not self._holders.get(number)]:
            self._left.pop(number).close()
            self._holders.pop(number, None)

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            try:
                self.look()
            except (ReidRayError, OSError) as error:
                _LOG.warning("the gallery cannot be followed (%s); what is open is served", error)


class _Coming:
    """A newer generation that is opened beside the one that is served, and what it removes, which that one hides meanwhile.

    Attributes:
        has_gaps: a generation in between was not read, and what it erased for good is named nowhere any more: nobody is to be waited for.
    """

    def __init__(self, folder: str | Path, served: GalleryView, opening: Future[GalleryView]) -> None:
        self._served = served
        self._log = GalleryView(folder, share=NOTHING, removed=served.hide)
        self._generation = self._log.generation
        self.has_gaps = self._generation > served.generation + 1
        self._heeded = {each.request for each in served.erasures}
        self._opening = opening
        self._is_opened = False

    def hide_removed(self) -> None:
        """Read the log on, and hide what it removes; what the one before erased at its end, after the last look, the manifest names."""
        self._log.refresh()
        self.has_gaps |= self._log.generation > self._generation + 1
        self._generation = self._log.generation
        for erasure in self._log.erasures:
            if erasure.request not in self._heeded:
                self._heeded.add(erasure.request)
                self._served.hide(erasure.ids)

    def opened(self, wait_s: float) -> GalleryView | None:
        """The newer generation as it is now, once it is open; waits for that, but not longer than a look lasts.

        Raises:
            DataError: it is damaged.
        """
        with contextlib.suppress(TimeoutError):
            found = self._opening.result(wait_s)
            if self._is_opened:
                found.refresh()
            self._is_opened = True
            return found
        return None

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()
