"""A proxy in front of an object store that fails every request once, in one way, before it lets the same request through."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

# Nothing is done: busy (503), conflict (409 to a conditional write). It is done, but: broken (500), lost (the connection breaks), late
# (no answer for longer than a client waits).
FAULTS = ("busy", "conflict", "broken", "lost", "late")


@contextmanager
def faulty(endpoint: str, fault: str, *, late_s: float = 1.0) -> Iterator[str]:
    """The endpoint of a proxy to `endpoint` that does `fault` to the first request of each method, path and condition."""
    seen: set[tuple[str, str, str | None]] = set()
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            conditional = self.headers.get("If-Match") or self.headers.get("If-None-Match")
            request = (self.command, self.path, conditional)
            with lock:
                first = request not in seen and (fault != "conflict" or (self.command == "PUT" and conditional is not None))
                seen.add(request)
            if first and fault in ("busy", "conflict"):
                return self.answer(503 if fault == "busy" else 409, {}, b"")
            status, headers, content = self.forwarded(body)
            if first and fault == "lost":
                return None
            if first and fault == "late":
                time.sleep(late_s)
            return self.answer(500, {}, b"") if first and fault == "broken" else self.answer(status, headers, content)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        def forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(endpoint)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            found = answer.status, dict(answer.getheaders()), answer.read()
            connection.close()
            return found

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            try:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                self.send_header("Content-Length", headers.get("Content-Length", str(len(content))))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # nobody waits for it any more

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
