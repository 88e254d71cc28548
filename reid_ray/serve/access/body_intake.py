"""Reading request bodies under limits: bytes, a least speed, and how many bodies may be in hand at once.

A body that is not here within a quarter of a second takes one of a number of places, so that slow bodies never stand in the way of quick
ones; when all places are taken, the slowest one gives way to a newcomer. Nothing is read ahead of the application. Knows ASGI's receive
and time; not what is in a body.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from reid_ray.serve.access.config import AccessConfig
from reid_ray.serve.access.refusals import Message, Receive, Refusal
from reid_ray.serve.access.route_table import RouteRule
from reid_ray.serve.process.shared_timer import SharedTimer

_QUICK_S = 0.25  # a body that is here by then needs no place
_GRACE_S = 1.0  # a body younger than this gives way to nobody


class BodyRefusedError(Exception):
    """A body is not read further. What the application makes of it does not matter: the gatekeeper answers with the refusal."""


class BodyIntake:
    """The bodies that a process is reading or holds, all requests together."""

    def __init__(self, limits: AccessConfig) -> None:
        self.limits = limits
        self.held_bytes = 0
        self._reading: set[IncomingBody] = set()
        self.quick: SharedTimer[IncomingBody] = SharedTimer(min(_QUICK_S, limits.body_timeout_s), IncomingBody.take_place)

    def enter(self, body: IncomingBody) -> Refusal | None:
        """Give a body a place; a refusal where there is none."""
        if len(self._reading) >= self.limits.bodies_in_hand and not self._drop_slowest():
            return _BUSY
        self._reading.add(body)
        return None

    def leave(self, body: IncomingBody) -> None:
        """Free a body's place."""
        self._reading.discard(body)

    def hold(self, size: int) -> Refusal | None:
        """Count bytes that a body brought; a refusal where all bodies together would hold too many."""
        if size and self.held_bytes + size > self.limits.body_mb_in_hand << 20 and not self._drop_slowest():
            return _BUSY
        self.held_bytes += size
        return None

    def _drop_slowest(self) -> bool:
        now = time.monotonic()
        old = [each for each in self._reading if now - each.began > _GRACE_S]
        if not old:
            return False
        slowest = min(old, key=lambda each: each.size / (now - each.began))
        self._reading.discard(slowest)
        slowest.give_way()
        return True


class IncomingBody:
    """The body of one request: its `receive` for the application, and why it was refused, if it was. A context manager of its life."""

    def __init__(self, receive: Receive, rule: RouteRule, intake: BodyIntake) -> None:
        self.size, self.began = 0, time.monotonic()
        self.refusal: Refusal | None = None
        self._receive, self._rule, self._intake = receive, rule, intake
        self._complete, self._held, self._is_slow = False, 0, False
        self._timeout: asyncio.Timeout | None = None

    def __enter__(self) -> IncomingBody:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()
        self._intake.held_bytes -= self._held

    def give_way(self) -> None:
        """End the reading of this body, for others need its place."""
        self._stop(_GAVE_WAY)

    async def receive(self) -> Message:
        """ASGI's receive.

        Raises:
            BodyRefusedError: the body is too large, too slow, or gave way to others.
        """
        if self._complete:
            return await self._receive()  # tells of the client's leaving, which may come at any time
        if not self._is_slow:  # who never asks for a body takes no place
            self._intake.quick.begin(self)
        if self.refusal is not None:
            raise BodyRefusedError
        message = await self._next()
        part = len(message.get("body", b""))
        self.size += part
        if self.size > self._rule.body_bytes:
            self.refusal = too_large(self._rule.body_bytes)
        elif not self._rule.spooled:
            refusal = self._intake.hold(part)
            self._held += 0 if refusal else part
            self.refusal = self.refusal or refusal
        if self.refusal is not None:
            raise BodyRefusedError
        if not message.get("more_body", False):
            self._complete = True
            self._leave()
        return message

    def take_place(self) -> None:
        """Be one of the slow bodies, or be refused where there are too many."""
        self._is_slow = True
        refusal = self._intake.enter(self)
        if refusal is not None:
            self._stop(refusal)
        elif self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._left_s())

    def _leave(self) -> None:
        self._intake.quick.end(self)
        self._intake.leave(self)

    def _stop(self, refusal: Refusal) -> None:
        self.refusal = refusal
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def _next(self) -> Message:
        try:
            # A quick body, as nearly all are, needs no timer of its own.
            async with asyncio.timeout(self._left_s() if self._is_slow else None) as self._timeout:
                return await self._receive()
        except TimeoutError:
            self.refusal = self.refusal or Refusal(
                408,
                f"the request's body came too slowly: {self.size} bytes in {self._allowed_s():.0f} s; send it faster, or less of it",
            )
            raise BodyRefusedError from None
        finally:
            self._timeout = None

    def _allowed_s(self) -> float:
        limits = self._intake.limits
        return limits.body_timeout_s + self.size / (limits.body_kb_per_s * 1024)

    def _left_s(self) -> float:
        return max(self.began + self._allowed_s() - time.monotonic(), 0.0)


def too_large(limit: int) -> Refusal:
    """The refusal of a body above `limit` bytes."""
    return Refusal(413, f"the request body is larger than {limit} bytes, the most allowed here")


_BUSY = Refusal.later(503, "the service is reading as many request bodies as it can; try again in a moment", 1)
_GAVE_WAY = Refusal.later(503, "the request's body came slowly and gave way to others; try again later", 5)
