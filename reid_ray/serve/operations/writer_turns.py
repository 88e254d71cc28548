"""The writer of a gallery in a service: opened when a change is asked for, kept while there are more, then given back to others.

All changes of a process go through one thread, in the order in which they were asked for. Knows when; not what is changed, or HTTP.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from reid_ray.errors import ReidRayError
from reid_ray.gallery.deadlines import READER_SHARE, ErasureTimer
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.gallery.manifest import Erasure
from reid_ray.serve.operations.config import WritingConfig
from reid_ray.storage.lock import HeldByAnotherError
from reid_ray.storage.object_store.object_client import is_store_address
from reid_ray.terminal.own_lines import say

_Done = TypeVar("_Done")
_RETAIN_EVERY_S, _AT_STORE_S = 3_600.0, 120.0


class BusyError(ReidRayError):
    """A change has not begun and will not: another process writes, or too many changes wait. `retry_after_s`: when to ask again."""

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass
class _Asked:
    change: Callable[[GalleryWriter], Any]
    future: Future[Any]
    until: float  # by time.monotonic(), it begins or is refused
    is_quiet: bool = False  # changes nothing that is searched


class WriterTurns:
    """Does changes one after the other; a context manager.

    Args:
        gallery: folder or address.
        config: when it is opened and given back.
        changed: called in the writing thread after each change, before it counts as done: the searches of this process see it then.
    """

    def __init__(self, gallery: str | Path, config: WritingConfig, *, changed: Callable[[], object] = lambda: None) -> None:
        self.gallery, self._config, self._changed = gallery, config, changed
        at_store = is_store_address(str(gallery))
        self._idle_s = config.idle_s if config.idle_s is not None else _AT_STORE_S if at_store else 2.0
        self._turn_s = config.turn_s if config.turn_s is not None else _AT_STORE_S if at_store else 5.0
        self._asked: queue.Queue[_Asked | None] = queue.Queue()
        self._writer: GalleryWriter | None = None
        self._opened = self._tended = 0.0
        self._kept_open = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="gallery-writer", daemon=True)
        self._thread.start()

    def ask(self, change: Callable[[GalleryWriter], _Done], *, wait_s: float | None = None, is_quiet: bool = False) -> Future[_Done]:
        """Have a change done. Its future raises BusyError if it does not begin within `wait_s` (the configuration's), and what it raises.

        Raises:
            BusyError: too many wait.
        """
        if self._is_over:
            raise BusyError("the service is stopping; ask again when it is up")
        if self._asked.qsize() >= self._config.most_waiting:
            raise BusyError(f"{self._config.most_waiting} changes wait already; try again later")
        asked = _Asked(change, Future(), time.monotonic() + (self._config.wait_s if wait_s is None else wait_s), is_quiet)
        self._asked.put(asked)
        return asked.future

    @contextmanager
    def kept_open(self, *, wait_s: float | None = None) -> Iterator[GalleryWriter]:
        """The open writer for long work beside the changes, such as compacting; it is not given back before the block ends.

        Raises:
            BusyError: another process writes.
        """

        def keep(writer: GalleryWriter) -> GalleryWriter:
            self._kept_open += 1
            return writer

        def give(_: GalleryWriter) -> None:
            self._kept_open -= 1

        writer = self.ask(keep, wait_s=wait_s, is_quiet=True).result()
        try:
            yield writer
            self._changed()
        finally:
            self._asked.put(_Asked(give, Future(), float("inf"), is_quiet=True))

    def keep_deadlines(self, view: GalleryView) -> ErasureTimer:
        """Have erasures of `view` (and retention) carried out in time, by opening the gallery for writing, until the timer is closed."""
        config = view.manifest.config

        def waiting() -> list[Erasure]:
            view.refresh()
            if config.retention_days is not None and time.monotonic() - self._tended > _RETAIN_EVERY_S:
                tend()
            return view.erasures

        def tend() -> None:
            self.ask(lambda writer: writer.carry_out_erasures(due_only=True)).result()  # who opens it sees to retention, too

        look_s = max(0.1, min(60.0, 36 * config.erase_within_hours))  # who asks may be another process
        return ErasureTimer(waiting, tend, share=READER_SHARE, gallery=self.gallery, look_s=look_s)

    def close(self) -> None:
        """Do what waits, then give the gallery back."""
        self._is_over = True
        self._asked.put(None)
        self._thread.join()

    def __enter__(self) -> WriterTurns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            try:
                asked = self._asked.get(timeout=None if self._writer is None or self._kept_open else self._idle_s)
            except queue.Empty:
                self._give_back()
                continue
            if asked is None:
                self._give_back()
                return
            self._do(asked)
            self._let_others_have_a_turn()

    def _do(self, asked: _Asked) -> None:
        if not asked.future.set_running_or_notify_cancel():
            return
        try:
            done = asked.change(self._open(asked.until))
            if not asked.is_quiet:
                self._changed()
        except BaseException as error:  # noqa: BLE001 - whoever asked is told; the thread goes on
            if not isinstance(error, ReidRayError) and not self._kept_open:
                self._give_back()  # the disk is full, a lease was taken over: the next change opens the gallery anew
            asked.future.set_exception(error)
        else:
            asked.future.set_result(done)

    def _open(self, until: float) -> GalleryWriter:
        left = until - time.monotonic()
        if left < 0:
            raise BusyError("the change did not begin in time, since others took long; try again later")
        if self._writer is None:
            try:
                self._writer = GalleryWriter(self.gallery, wait_s=left)
            except HeldByAnotherError as error:
                raise BusyError(f"busy: {error}") from None
            self._opened = self._tended = time.monotonic()
        return self._writer

    def _let_others_have_a_turn(self) -> None:
        if self._writer is not None and not self._kept_open and time.monotonic() - self._opened > self._turn_s:
            pause_s = 3 * self._writer.ask_again_s
            self._give_back()
            time.sleep(pause_s)

    def _give_back(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except Exception as error:  # noqa: BLE001 - what was acknowledged is on the disk; the thread must go on
            say(f"gallery: {self.gallery} was not closed in order ({type(error).__name__})")
