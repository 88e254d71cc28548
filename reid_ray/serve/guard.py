"""ASGI middleware for authentication (bearer token) and request size limits, in front of the application.

Knows headers, addresses and byte counts; not what is asked. A body that is too large is refused by its Content-Length, or, if it
has none, as soon as the limit is passed: it is never held whole.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException

from reid_ray.serve.config import ServeConfig, is_loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN_PATHS = frozenset({"/v1/live", "/v1/ready"})
# What proxies, load balancers and tunnels add to a request: RFC 7239 and 9110, and the names of the usual ones.
_PROXY = re.compile(
    rb"forwarded|forwarded-.*|via|proxy-.*|x-forwarded|x-forwarded-.*|x-proxy.*|x-original-.*|x-envoy-.*|x-arr-.*|x-amzn-trace-id|cf-.*|"
    rb"cdn-loop|(.*-)?(client|real|remote|connecting|user)-?(ip|addr|address)"
)
_FORM_OVERHEAD = 64 << 10  # field names, boundaries, JSON keys


def digest_of(token: str) -> bytes:
    """What the service keeps of a token: enough to compare, not to ask with."""
    return hashlib.sha256(token.encode()).digest()


class Guard:
    """Lets a request through to `app`, or answers 401, 403 or 413 itself.

    With a token, every path but those that probes ask needs `Authorization: Bearer TOKEN`, or Basic with the token as password, which is
    what a browser asks its user for. Without one, only this machine is answered, whatever address the proxy was bound to, and no request
    that came through a proxy: it reaches the service from this machine, but whoever sent it may sit anywhere. A proxy that leaves no trace
    in the headers cannot be told from its user; put a token behind it.
    """

    def __init__(self, app: Any, *, limits: ServeConfig, token_digest: bytes | None) -> None:
        self._app, self._limits, self._token_digest = app, limits, token_digest

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in OPEN_PATHS:
            remote = _why_remote(scope.get("client"), headers) if self._token_digest is None else None
            if remote is not None:
                await _refuse(
                    send,
                    403,
                    f"this service has no token set, so it answers only its own machine, {remote}; set serve.token_env to open it",
                )
                return
            if self._token_digest is not None and not self._authenticated(headers.get(b"authorization", "")):
                challenge = [
                    (b"www-authenticate", b"Bearer"),
                    (b"www-authenticate", b'Basic realm="reid_ray: any user, token as password"'),
                ]
                await _refuse(send, 401, "a valid token is required: send the header Authorization: Bearer TOKEN", challenge)
                return
        limit = self._body_limit(path)
        length = headers.get(b"content-length", "")
        if length.isdigit() and int(length) > limit:
            await _refuse(send, 413, _too_large(limit))
            return
        await self._app(scope, _capped(receive, limit), send)

    def _authenticated(self, authorization: str) -> bool:
        scheme, _, credentials = authorization.partition(" ")
        given = credentials.strip()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return self._token_digest is not None and hmac.compare_digest(digest_of(given), self._token_digest)

    def _body_limit(self, path: str) -> int:
        if path == "/v1/search/upload":
            return 8 * self._limits.max_upload_bytes + _FORM_OVERHEAD
        if path.startswith(("/v1/search", "/v1/explain")):
            return self._limits.max_upload_bytes * 4 // 3 + _FORM_OVERHEAD
        return self._limits.max_text_chars * 12 + _FORM_OVERHEAD  # JSON may write a character as two \uXXXX


def _why_remote(client: Any, headers: Mapping[bytes, str]) -> str | None:
    """Why a request may come from another machine; None if it comes from this one."""
    if not _from_this_machine(client, headers.get(b"host", "")):
        return "by its own name"
    trace = next((name for name in headers if _PROXY.fullmatch(name)), None)
    return None if trace is None else f"and the header {trace.decode('latin-1')} says that this request came through a proxy"


def _from_this_machine(client: Any, host: str) -> bool:
    # The Host header too: a page from elsewhere may point its own name at 127.0.0.1 and read the answers through the user's browser.
    if not client or not is_loopback(str(client[0])):
        return False
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


def _capped(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def receive_within_limit() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return receive_within_limit


def _too_large(limit: int) -> str:
    return f"the request body is larger than {limit} bytes, the most allowed here"


async def _refuse(send: Send, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = json.dumps({"detail": detail}).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": fixed + (headers or [])})
    await send({"type": "http.response.body", "body": body})
