"""uvicorn's HTTP protocol, stricter: what is no HTTP is told in JSON like every other error, and a request's head has a largest size.

uvicorn itself answers the first as plain text, and reads a head of any length into memory before any application is asked. Knows bytes of
a connection; not routes.
"""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from reid_ray.serve.client_presence import say_presence

MOST_HEAD_BYTES = 64 << 10
_NO_HTTP = "the request is no valid HTTP/1.1"
_LONG_HEAD = f"the request's first line and headers are larger than {MOST_HEAD_BYTES} bytes, the most allowed"


class StrictHttp(HttpToolsProtocol):
    """A connection to a service."""

    _in_head, _head_bytes = True, 0

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
        say_presence(self.scope["state"], self.transport.is_closing)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for the next head of the connection."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that the request cannot be read, and end the connection."""
        self._refuse(b"400 Bad Request", _NO_HTTP)

    def _refuse(self, status: bytes, detail: str) -> None:
        body = json.dumps({"detail": detail}).encode()
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
