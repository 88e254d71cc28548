"""Engine loop: the thread of an actor that drives its engine, step by step, while other threads prepare requests and take replies.

Knows requests, time limits and how a process ends when its engine is lost; not what is asked. A request that takes too long is aborted
and ends in an error. An engine that raises is in no known state, and one whose step, or whose preparation of a request, does not return
hangs: either ends the process, after the reason has been told, and Ray starts the actor again. A step that hangs is ended by Python's
faulthandler, from a thread of its own that needs no interpreter lock, and leaves its traceback.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import queue
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from inspect import getfile
from pathlib import Path
from typing import Any, NoReturn

from reid_ray.caption.engines.protocol import Conversation, EngineLoad, Reply, StreamingEngine, TakesMemory, TellsLoad, texts_of
from reid_ray.caption.streaming.fair_lock import FairLock
from reid_ray.caption.streaming.stage_clock import ENGINE, StageClock
from reid_ray.errors import EngineDownError, ReidRayError, reason_of
from reid_ray.redaction import without_texts

EXIT_CODE = 70
_ADVANCES = " in _advance_it"  # of WorkStream, as faulthandler writes it: a thread that decodes, or cleans an answer
_FORGETTING = 0.99  # a step, of the longest one lately
_ALIKE = 100  # requests that are rejected in the same words before any is answered: the configuration is wrong, not they


@dataclass(frozen=True)
class Request:
    """One question to the engine.

    key: names it and seeds its random stream.
    """

    conversation: Conversation
    key: str


@dataclass
class _Open:
    texts: Sequence[str]  # of what is asked, not to be quoted by an error; its pictures are the engine's own, or gone
    answer: Callable[[Any], None]
    since: float = 0.0


class EngineLoop:
    """Drives a streaming engine.

    Args:
        engine: driven by this loop's thread alone, but for `prepare`.
        together: requests that join those that run in one step, once there is room for so many. 1 hands each on as it comes.
        timeout_s: seconds from adding a request after which it is aborted, and that one step, or its preparation, may take.
        traceback: file that a hung step's traceback is written to; empty while none hangs.
        explain: told the reason before this process ends itself.
        turns: of a step, and of what is done between the answers of one row and its next requests, where they have one core.
    """

    def __init__(
        self,
        engine: StreamingEngine,
        *,
        together: int = 1,
        timeout_s: float,
        traceback: Path,
        explain: Callable[[str], None],
        turns: FairLock | None = None,
    ) -> None:
        self._engine, self._together, self._timeout_s, self._explain = engine, together, timeout_s, explain
        self._turns = turns
        self._held: deque[tuple[Any, _Open]] = deque()  # they have come and wait for others to join with
        self._coming: queue.SimpleQueue[tuple[Any, _Open] | None] = queue.SimpleQueue()  # None: look at _error
        self._open: dict[str, _Open] = {}
        self._count, self._busy, self.steps, self._prepared = 0, 0.0, 0, itertools.count()
        self.clock = StageClock()
        self.request_seconds = 0.0  # of steps, times the requests with the engine in each
        self.tokens: Counter[str] = Counter()  # of prompts, found in the prefix cache, written
        self._preparing: dict[int, float] = {}  # requests that other threads prepare just now, the longest first: since when
        self._error: ReidRayError | None = None
        self._lock = threading.Lock()
        self._rejected: tuple[str, int] | None = ("", 0)  # the words of the first rejections and their number; None once one was answered
        self._traceback = traceback.open("w")
        self._armed = 0.0
        threading.Thread(target=self._run, name="engine-loop", daemon=True).start()

    def ask(self, request: Request, answer: Callable[[Reply | ReidRayError], None]) -> int:
        """Prepare a request in the calling thread and queue it; returns the bytes that it takes, as far as the engine says.

        Args:
            request: what is asked.
            answer: called once with the reply, from either thread; an error where the engine is lost for good.
        """
        if self._error is not None:
            answer(self._error)
            return 0
        with self._lock:
            number = next(self._prepared)
            self._preparing[number] = time.monotonic()
        try:
            prepared = self._engine.prepare(request.conversation, request.key)
        except ReidRayError:
            raise
        except Exception as error:  # noqa: BLE001 - what prepares is in no known state either
            self._die(reason_of(error), texts_of(request.conversation))
        finally:
            with self._lock:
                del self._preparing[number]
        opened = _Open(tuple(texts_of(request.conversation)), answer)
        if isinstance(prepared, Reply):
            self._reply(opened, prepared)
        else:
            self._coming.put((prepared, opened))
        return prepared.nbytes if isinstance(prepared, TakesMemory) else 0

    def turn(self) -> AbstractContextManager[None]:
        """For the time of the block, nobody else runs who takes turns with the engine; to be held while a row goes on, not to wait."""
        return contextlib.nullcontext() if self._turns is None else self._turns.turn(self._watch_preparation)

    def take_busy_seconds(self) -> float:
        """Seconds spent in steps since the last call."""
        busy, self._busy = self._busy, 0.0
        return busy

    @property
    def running(self) -> int:
        """Requests with the engine."""
        return len(self._open)

    def load(self) -> EngineLoad:
        """What the engine tells of its load, or what can be told from outside; with those that are on their way to it."""
        told = self._engine.load() if isinstance(self._engine, TellsLoad) else None
        if told is None:
            running = min(len(self._open), self._engine.capacity)
            told = EngineLoad(running, len(self._open) - running, None)
        return told._replace(waiting=told.waiting + len(self._held) + self._coming.qsize() + len(self._preparing))

    def _run(self) -> None:
        full_s = 0.0  # what a step with much to do took lately: the first ones of a run are quick, for there is little in them yet
        try:
            while True:
                self._add(wait=not self._open and not self._held)
                if not self._open:
                    continue
                self._fill(full_s)
                self._arm()
                with self.turn():
                    if self._turns is not None:
                        self._add(wait=False)  # what came while it waited for its turn
                    finished, step_s = self._step()
                full_s = max(step_s, _FORGETTING * full_s)
                for name, reply in finished:
                    self._reply(self._open.pop(name), reply)
                self._abort_slow()
                if not self._open:
                    self._disarm()
        except ReidRayError as error:
            self._disarm()
            self._end(error)
        except Exception as error:  # noqa: BLE001
            self._die(reason_of(error))

    def _step(self) -> tuple[Sequence[tuple[str, Reply]], float]:
        """What one step finished, and its seconds."""
        clock = time.perf_counter()
        with self.clock.at(ENGINE):
            finished = self._engine.step()
        seconds = time.perf_counter() - clock
        self._busy += seconds
        self.request_seconds += seconds * len(self._open)
        self.steps += 1
        return finished, seconds

    def _fill(self, step_s: float) -> None:
        """Wait for requests that are being prepared while there is room for them: a step costs about the same for few as for many.

        Args:
            step_s: of a full step. That long at most while nothing runs, less the more requests are held up.
        """
        until = time.perf_counter() + step_s * (1 - len(self._open) / self._engine.capacity)
        while self._preparing and self._room >= self._together and (left := until - time.perf_counter()) > 0:
            self._add(wait=True, seconds=left)

    @property
    def _room(self) -> int:
        return self._engine.capacity - len(self._open)

    def _add(self, *, wait: bool, seconds: float | None = None) -> None:
        """Hand on what has come, as far as it may join; wait for the first, or so many seconds."""
        self._take(wait=wait, seconds=seconds)
        for _ in range(self._joining()):
            self._hand_on(*self._held.popleft())

    def _joining(self) -> int:
        """How many of those that have come may join now. A group waits for room, and for the rest of it while others are prepared."""
        if self._together == 1:
            return len(self._held)
        if self._open and (self._room < self._together or (len(self._held) < self._together and self._preparing)):
            return 0
        return min(self._room, len(self._held))

    def _take(self, *, wait: bool, seconds: float | None) -> None:
        while True:
            self._watch_preparation()
            try:
                coming = self._coming.get(block=wait, timeout=min(1.0, self._timeout_s) if seconds is None else seconds)
            except queue.Empty:
                if wait and seconds is None:
                    continue
                return
            if self._error is not None:
                raise self._error
            if coming is not None:
                self._held.append(coming)
                wait = False

    def _hand_on(self, prepared: Any, opened: _Open) -> None:
        name = str(self._count)
        self._count += 1
        self._arm()
        refused = self._engine.add(name, prepared)
        if refused is not None:
            self._reply(opened, refused)
            if not self._open:
                self._disarm()
            return
        opened.since = time.monotonic()
        self._open[name] = opened
        self._rejected = None

    def _reply(self, opened: _Open, reply: Reply) -> None:
        if self._rejected is not None:
            self._count_rejected(reply)
        if reply.prompt_tokens or reply.tokens:
            self.tokens.update(prompt=reply.prompt_tokens, cached=reply.cached_tokens, written=reply.tokens)
        opened.answer(reply)

    def _count_rejected(self, reply: Reply) -> None:
        with self._lock:
            if self._rejected is None:
                return
            words, count = self._rejected
            said = re.sub(r"\d+", "#", str(reply.error))
            self._rejected = None if reply.error is None or (count and said != words) else (said, count + 1)
            if count + 1 == _ALIKE and self._rejected is not None:
                self._error = EngineDownError(
                    f"the engine rejected its first {_ALIKE} requests alike ({reply.error}); mend the model's section"
                )
                self._coming.put(None)

    def _abort_slow(self) -> None:
        limit = time.monotonic() - self._timeout_s
        slow = [name for name, _ in itertools.takewhile(lambda each: each[1].since < limit, self._open.items())]  # the longest there first
        if slow:
            self._engine.abort(slow)
            for name in slow:
                self._open.pop(name).answer(Reply(None, error=f"timed out after {self._timeout_s:g} s"))

    def _watch_preparation(self) -> None:
        with self._lock:
            since = next(iter(self._preparing.values()), None)
        if since is not None and time.monotonic() - since > self._timeout_s:
            self._die(f"timed out after {self._timeout_s:g} s in the preparation of a request")

    def _end(self, error: ReidRayError) -> None:
        """The engine takes no more; all who wait, and all who come, are told why."""
        for opened in [*self._open.values(), *(opened for _, opened in self._held)]:
            opened.answer(error)
        self._open = {}
        self._held.clear()
        while True:
            coming = self._coming.get()
            if coming is not None:
                coming[1].answer(error)

    def _die(self, reason: str, texts: Iterable[str] = ()) -> NoReturn:
        self._disarm()
        opened = list(self._open.values())
        self._explain(without_texts(reason, [*texts, *(text for each in opened for text in each.texts)]))
        os._exit(EXIT_CODE)

    def _arm(self) -> None:
        """Have the process ended if it does not come back here in time; renewed seldom, for it costs a thread."""
        now = time.monotonic()
        if now - self._armed > self._timeout_s / 4:
            self._armed = now
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._traceback)

    def _disarm(self) -> None:
        self._armed = 0.0
        faulthandler.cancel_dump_traceback_later()


def how_it_hung(traceback: Path, *, timeout_s: float) -> str | None:
    """What the traceback of an earlier process says, in a line; None if no step of it hung."""
    stack = traceback.read_text(encoding="utf-8", errors="replace") if traceback.exists() else ""
    if not stack:
        return None
    blocks = [block for block in stack.split("\n\n") if Path(getfile(FairLock)).name not in block]  # those wait for others
    threads = [block for block in blocks if Path(__file__).name in block or _ADVANCES in block] or [stack]
    frames = [line.strip() for line in threads[0].splitlines() if line.strip().startswith("File ")]
    return f"timed out after {timeout_s:g} s in {frames[0] if frames else 'an unknown place'}"
