"""uvicorn's HTTP protocol, stricter: what is no HTTP is told in JSON like every other error, and a request's head has a largest size.

uvicorn itself answers the first as plain text, and reads a head of any length into memory before any application is asked. What an
application can say by the head alone (`early_answer` in its state) costs no more than to read that. Knows bytes of a connection; not
routes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from reid_ray.serve.client_presence import say_presence

MOST_HEAD_BYTES = 64 << 10
_NO_HTTP = "the request is no valid HTTP/1.1"
_LONG_HEAD = f"the request's first line and headers are larger than {MOST_HEAD_BYTES} bytes, the most allowed"

Headers = Sequence[tuple[bytes, bytes]]


class EarlyAnswer(NamedTuple):
    """An answer to a request whose body nobody has to read."""

    status: int
    headers: Headers
    body: bytes


EarlyAnswering = Callable[[bytes, bytes, Headers], EarlyAnswer | None]
"""A request's method, target and headers -> what is said to it, if that is known already."""


class StrictHttp(HttpToolsProtocol):
    """A connection to a service."""

    _in_head, _head_bytes, _is_answered = True, 0, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        self._in_head, self._head_bytes = True, 0
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Read on, unless a head grows without an end."""
        self._head_bytes += len(data) if self._in_head else 0
        super().data_received(data)
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", _LONG_HEAD)

    def on_headers_complete(self) -> None:
        """Let the application have the request."""
        self._in_head = False
        if (early := self._early_answer()) is not None:
            self._is_answered = True
            self._say(early)
            return
        say_presence(self.scope["state"], self.transport.is_closing)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Let the application have a part of the body."""
        if not self._is_answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next head of the connection."""
        self._in_head, self._head_bytes = True, 0
        if not self._is_answered:
            super().on_message_complete()
        self._is_answered = False
        # A body that came later than its answer put an end to the timer of that, and the connection might be kept for good.
        if self._has_answered() and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _early_answer(self) -> EarlyAnswer | None:
        """What is said without the application, on a connection that goes on, and whose earlier requests are answered."""
        answering: EarlyAnswering | None = getattr(getattr(self.app, "state", None), "early_answer", None)
        if answering is None or not self._has_answered():
            return None
        parser = self.parser
        if self.expect_100_continue or parser.get_http_version() != "1.1" or parser.should_upgrade() or not parser.should_keep_alive():
            return None
        return answering(self.parser.get_method(), self.url, self.headers)

    def _has_answered(self) -> bool:
        """Whether every request that the application was asked has its answer."""
        return self.cycle is None or self.cycle.response_complete

    def _say(self, answer: EarlyAnswer) -> None:
        lines: list[Any] = [b"HTTP/1.1 %d %b\r\n" % (answer.status, HTTPStatus(answer.status).phrase.encode())]
        for name, value in (*self.server_state.default_headers, *answer.headers):
            lines += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*lines, b"\r\n", answer.body)))
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that the request cannot be read, and end the connection."""
        self._refuse(b"400 Bad Request", _NO_HTTP)

    def _refuse(self, status: bytes, detail: str) -> None:
        body = json.dumps({"detail": detail}).encode()
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
