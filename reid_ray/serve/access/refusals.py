"""How the gatekeeper answers: a refusal as JSON {"detail": sentence}, and the headers that every answer of the service has.

Knows ASGI messages; not why anything is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

# A page of ours states its own policy; whatever else is opened in a browser runs nothing, loads nothing and is framed by nobody.
_POLICY = b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_ALWAYS: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
_UNLESS_STATED: Headers = ((b"cache-control", b"no-store"), (b"content-security-policy", _POLICY))
_OURS = frozenset(name for name, _ in _ALWAYS)


@dataclass(frozen=True)
class Refusal:
    """What a request gets instead of an answer: a status, one sentence, and headers of its own."""

    status: int
    detail: str
    headers: Headers = ()

    @classmethod
    def later(cls, status: int, detail: str, wait_s: float) -> Refusal:
        """One that may be asked again after `wait_s` seconds (Retry-After)."""
        return cls(status, detail, ((b"retry-after", str(max(1, math.ceil(wait_s))).encode()),))


def protected(headers: Any, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, with those that every answer has and the number of its request."""
    stated = [(name.lower(), value) for name, value in headers]
    names = {name for name, _ in stated}
    if not _OURS.isdisjoint(names):
        stated = [each for each in stated if each[0] not in _OURS]
    return [*stated, *_ALWAYS, *(each for each in _UNLESS_STATED if each[0] not in names), (b"x-request-id", request_id)]


async def refuse(send: Send, refusal: Refusal, request_id: bytes) -> None:
    """Answer with a refusal, and end the connection: what is left of the request's body is not read."""
    body = json.dumps({"detail": refusal.detail}).encode()
    fixed = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": protected((*fixed, *refusal.headers), request_id)})
    await send({"type": "http.response.body", "body": body})
