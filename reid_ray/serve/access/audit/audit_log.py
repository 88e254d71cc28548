"""The audit log of a service: records who asked what, for which purpose, with which outcome. Its answer may be given once it is recorded.

What is recorded in one turn of the event loop is written in one go (group commit): there and then, as long as that is quick, else by a
thread, which also brings it to the disk. What changes the gallery is on the disk before its answer; searches are within a fraction
of a second, which a power cut can cost, a killed process cannot. What was searched for is kept as a keyed digest: it can be asked whether
somebody searched for a given text or picture, by whoever has the key, and not what somebody searched for. Knows callers and digests; not
HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reid_ray.errors import ReidRayError
from reid_ray.serve.access.audit.chain_files import ChainFiles, now_in_words
from reid_ray.serve.access.config import AuditConfig
from reid_ray.serve.access.roles import Caller
from reid_ray.serve.access.secret_key import secret_key

KEY_FILE = "audit.key"
_TOGETHER = 1000  # records written in one go
_DIGESTED = 100  # items' digests in a record; of more there is one of all beside these
_DIGEST_CHARS = 32
_QUICK_S = 0.002  # what an event loop may stand still for a record
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 600.0  # in which the thread writes, once it took longer
_LOG = logging.getLogger(__name__)


class AuditFailedError(ReidRayError):
    """A record cannot be written, so that nothing may be answered."""


@dataclass(frozen=True)
class AuditedAct:
    """What somebody asked for, and what came of it.

    Args:
        caller: who; None if that is not known, as with a wrong token.
        verb: what, in a word such as search.
        outcome: the answer's status, or a word.
        purpose: what for, as the caller said.
        request: the request's number.
        items: how many items were found, added, deleted or erased.
        sought: what was searched for, texts and bytes of pictures; kept as digests.
        ids: the items that were named; kept as digests.
        what: further words and numbers, kept as they are; none of a person.
        durable: whether it must be on the disk before it counts as recorded.
    """

    caller: Caller | None
    verb: str
    outcome: int | str
    purpose: str | None = None
    request: str | None = None
    items: int | None = None
    sought: Sequence[str | bytes] = ()
    ids: Sequence[str] = ()
    what: Mapping[str, Any] = field(default_factory=dict)
    durable: bool = False


class Digests:
    """Keyed digests (HMAC-SHA256, 128 bits) of what must not be readable in a log."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sought(self, value: str | bytes) -> str:
        """Of a text or a picture that was searched for."""
        return self._of(b"text", value.strip().encode("utf-8", "surrogatepass")) if isinstance(value, str) else self._of(b"picture", value)

    def item(self, item_id: str) -> str:
        """Of an item's id."""
        return self._of(b"item", item_id.encode("utf-8", "surrogatepass"))

    def _of(self, kind: bytes, data: bytes) -> str:
        return hmac.new(self._key, kind + b"\0" + data, "sha256").hexdigest()[:_DIGEST_CHARS]


@dataclass(eq=False)
class _Waiting:
    fields: Mapping[str, Any]
    durable: bool
    written: Future[None] | asyncio.Future[None]


class AuditLog:
    """Appends to the chain in a folder; several processes may, each with an AuditLog of its own. Threads may share one.

    Args:
        folder: of this log alone; made if it is not there. Its key (audit.key) is needed to find out what was searched for.
        config: file size, and how late searches may come to the disk.

    Raises:
        DataError: the key cannot be read or made.
    """

    def __init__(self, folder: Path, config: AuditConfig) -> None:
        self.folder = folder
        self.digests = Digests(secret_key(folder / KEY_FILE))
        self._sync_s = config.sync_s
        self._files = ChainFiles(folder, file_bytes=config.file_mb << 20)
        self._appending = threading.Lock()
        self._at_once_from, self._pause_s = 0.0, _PAUSE_S
        self._unsynced_since: float | None = None
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._gathered: list[_Waiting] = []
        self._gathering: asyncio.AbstractEventLoop | None = None  # whose turn they are of
        self._thread = threading.Thread(target=self._write, name="audit-log", daemon=True)
        self._thread.start()

    def record(self, act: AuditedAct) -> None:
        """Record an act; it is in the log when this returns.

        Raises:
            AuditFailedError: it cannot be written.
        """
        written: Future[None] = Future()
        self._queue.put([_Waiting(self._fields(act), act.durable, written)])
        written.result()

    async def recorded(self, act: AuditedAct) -> None:
        """As `record`, without holding the event loop up."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        if not self._gathered or self._gathering is not loop:
            self._gathering = loop
            loop.call_soon(self._write_gathered)
        self._gathered.append(_Waiting(self._fields(act), act.durable, written))
        await written

    def close(self) -> None:
        """Write what waits, bring it to the disk, and end."""
        self._queue.put(None)
        self._thread.join()

    def _write_gathered(self) -> None:
        """Write what was recorded in this turn of the event loop, or have the thread do it."""
        gathered, self._gathered = self._gathered, []
        began = time.monotonic()
        is_threads = began < self._at_once_from or any(each.durable for each in gathered)
        if is_threads or not self._appending.acquire(blocking=False):
            self._queue.put(gathered)
            return
        error = None
        try:
            is_written = self._files.append_at_once([each.fields for each in gathered])
        except Exception as failed:  # noqa: BLE001 - whoever waits must hear of any
            is_written, error = True, self._failure(failed)
        finally:
            self._appending.release()
            self._learn(time.monotonic() - began)
        if not is_written:
            self._queue.put(gathered)
            return
        loop, others = asyncio.get_running_loop(), []
        for each in gathered:
            if isinstance(each.written, asyncio.Future) and each.written.get_loop() is loop:
                _settle(each.written, error)
            else:
                others.append(each)  # recorded in another event loop's turn just now
        _tell(others, error)
        if error is None and self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
            self._queue.put([])  # the thread waits for the time to bring it to the disk

    def _learn(self, took_s: float) -> None:
        """Leave the next records to the thread where the event loop stood still: for longer each time, as on a disk across a network."""
        if took_s > _QUICK_S:
            self._at_once_from = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        else:
            self._pause_s = max(self._pause_s / 2, _PAUSE_S)

    def _fields(self, act: AuditedAct) -> dict[str, Any]:
        fields: dict[str, Any] = {"at": now_in_words(), "verb": act.verb, "outcome": act.outcome}
        if act.caller is not None:
            fields |= {"who": act.caller.name, "role": act.caller.role.word, "token": act.caller.token_id}
        stated: dict[str, Any] = {"purpose": act.purpose, "request": act.request, "items": act.items, "what": dict(act.what)}
        stated["sought"] = [self.digests.sought(each) for each in act.sought]
        stated["ids"] = [self.digests.item(each) for each in act.ids[:_DIGESTED]]
        if len(act.ids) > _DIGESTED:
            stated["ids"].append(f"{len(act.ids)} in all: {self.digests.item(chr(0).join(act.ids))}")
        return fields | {name: value for name, value in stated.items() if value not in (None, {}, [])}

    def _write(self) -> None:
        while True:
            since = self._unsynced_since
            batch, ended = self._next(None if since is None else max(0.0, since + self._sync_s - time.monotonic()))
            error = self._appended(batch) if batch else None
            if batch and error is None and self._unsynced_since is None:
                self._unsynced_since = time.monotonic()
            later = [each for each in batch if each.durable and error is None]
            _tell([each for each in batch if not each.durable or error is not None], error)
            since = self._unsynced_since
            if later or (since is not None and (ended or time.monotonic() >= since + self._sync_s)):
                self._unsynced_since = None  # before: what is appended meanwhile is for the next time
                _tell(later, self._synced())
            if ended:
                self._files.close()
                return

    def _next(self, patience_s: float | None) -> tuple[list[_Waiting], bool]:
        """What waits to be written, and whether the log is to end."""
        batch: list[_Waiting] = []
        try:
            waiting = self._queue.get(timeout=patience_s)
            while waiting is not None:
                batch += waiting
                if len(batch) >= _TOGETHER:
                    return batch, False
                waiting = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _appended(self, batch: Sequence[_Waiting]) -> AuditFailedError | None:
        try:
            with self._appending:
                self._files.append([each.fields for each in batch])
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of any
            return self._failure(error)
        return None

    def _synced(self) -> AuditFailedError | None:
        try:
            with self._appending:  # to write to a file that is being brought to the disk may take as long
                self._files.sync()
        except OSError as error:
            return self._failure(error)
        return None

    def _failure(self, error: Exception) -> AuditFailedError:
        _LOG.error("%s: the audit log cannot be written: %s", self.folder, error)
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        return AuditFailedError(f"the audit log cannot be written ({reason}), and without it nothing is answered; see {self.folder}")


def _tell(waiting: Sequence[_Waiting], error: BaseException | None) -> None:
    """Have whoever waits know; an event loop is woken once for all of its own."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for each in waiting:
        if isinstance(each.written, Future):
            _settle(each.written, error)
        else:
            by_loop.setdefault(each.written.get_loop(), []).append(each.written)
    for loop, futures in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(_settle_all, futures, error)


def _settle_all(futures: Sequence[asyncio.Future[None]], error: BaseException | None) -> None:
    for each in futures:
        _settle(each, error)


def _settle(future: Future[None] | asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():  # given up
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
