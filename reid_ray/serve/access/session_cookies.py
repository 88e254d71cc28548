"""Sessions of the page: a signed cookie that stands for a token which was shown once, and the rule that no other site may use it.

The cookie is HttpOnly and SameSite=Strict, so that no script reads it and no other site's page sends it; it says which token began the
session, when it ends and for which purpose, signed (HMAC-SHA256) with a key in the service's state folder, which all replicas share.
It ends when its user ends it (an empty file in that folder says so until its time is over), when its time is over, and when its token is
revoked, rotated or expired. Knows cookies and headers; not routes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reid_ray.serve.access.roles import Caller
from reid_ray.serve.access.secret_key import secret_key
from reid_ray.serve.access.tokens.token_book import TokenBook

_KEY_FILE, _ENDED = "sessions.key", "ended_sessions"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})
_LONGEST = 4096  # bytes of a cookie


class Sessions:
    """Begins and recognises sessions.

    Args:
        state: the service's state folder, where the signing key lies (mode 0600; made if it is not there).
        book: who holds a token.
        hours: how long a session lasts.
        secure: whether the service speaks TLS; the cookie is then sent over TLS alone.

    Raises:
        DataError: the key cannot be read or made.
    """

    def __init__(self, state: Path, book: TokenBook, *, hours: float, secure: bool, clock: Callable[[], float] = time.time) -> None:
        self._key = secret_key(state / _KEY_FILE)
        self._ended = state / _ENDED
        self._ended.mkdir(mode=0o700, exist_ok=True)
        self._book, self._seconds, self._secure, self._clock = book, round(hours * 3600), secure, clock
        # Browsers keep cookies by host, whatever the port: two services of one machine must not take each other's for theirs.
        mark = hashlib.sha256(b"name" + self._key).hexdigest()[:8]
        self.cookie_name = f"__Host-reid-{mark}" if secure else f"reid-{mark}"

    def begin(self, caller: Caller, purpose: str | None) -> str:
        """The Set-Cookie header of a new session of a caller who has just shown a token.

        Raises:
            ValueError: the caller showed none.
        """
        if caller.token_id is None:
            raise ValueError("a session begins with a token")
        now = int(self._clock())
        claims = {"session": secrets.token_hex(12), "token": caller.token_id, "until": now + self._seconds, "purpose": purpose}
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
        return self._header(f"{payload.decode()}.{self._signature(payload)}", self._seconds)

    def end(self, cookies: str) -> str:
        """End the session of a Cookie header, if it has one. Returns the Set-Cookie header that makes the browser forget it."""
        claims = self._claims(cookies)
        if claims is not None:
            mark = self._ended / claims["session"]
            mark.touch(mode=0o600)
            os.utime(mark, (self._clock(), self._clock()))
            self._sweep()
        return self._header("", 0)

    def caller_of(self, cookies: str) -> Caller | None:
        """Who a Cookie header's session belongs to; None without one, or if it is over, forged, or its token is no longer valid."""
        claims = self._claims(cookies)
        if claims is None or (self._ended / claims["session"]).exists():
            return None
        caller = self._book.caller_by_id(claims["token"])
        return caller and replace(caller, login=True, purpose=claims["purpose"])

    def _claims(self, cookies: str) -> dict[str, Any] | None:
        value = self._value(cookies)
        if value is None:
            return None
        payload, _, signature = value.partition(".")
        if not hmac.compare_digest(self._signature(payload.encode()), signature):
            return None
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))  # ours: it is signed
        return claims if self._clock() < claims["until"] else None

    def _sweep(self) -> None:
        """Forget ended sessions whose time is over anyway."""
        for each in self._ended.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another replica was quicker
                if self._clock() - each.stat().st_mtime > self._seconds:
                    each.unlink()

    def _value(self, cookies: str) -> str | None:
        start = f"{self.cookie_name}="
        found = next((each for part in cookies.split(";") if (each := part.strip()).startswith(start)), None)
        value = found.removeprefix(start) if found is not None else ""
        return value if value and len(value) <= _LONGEST and value.isascii() else None

    def _signature(self, payload: bytes) -> str:
        return hmac.new(self._key, payload, hashlib.sha256).hexdigest()

    def _header(self, value: str, seconds: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{self.cookie_name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


def why_forged(method: str, headers: Mapping[bytes, str], *, ambient: bool, scheme: str) -> str | None:
    """Why a request may have been made by another site's page, by way of its user's browser; None if it was not (CSRF).

    Args:
        method: of the request, as GET.
        headers: by lower-case name.
        ambient: whether the browser itself proves who asks (a cookie, an address), so that a foreign page could make it ask: then what
            changes something has to show that it is from here. Programs that send a token show that by it.
        scheme: http or https.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return None if site in _OWN_SITES else f"its Sec-Fetch-Site is {site[:20]}"
    origin = headers.get(b"origin")
    if origin is not None:
        return None if _is_of(origin, headers.get(b"host", ""), scheme) else "its Origin is another site"
    return "it has neither Sec-Fetch-Site nor Origin" if ambient and method not in _SAFE_METHODS else None


def _is_of(origin: str, host: str, scheme: str) -> bool:
    """Whether a page of `origin` was served by this host. TLS may end before the service, so that its pages are https where we see http."""
    try:
        parts = urlsplit(origin)
        schemes = ("https",) if scheme == "https" else ("http", "https")
        return parts.scheme in schemes and parts.netloc.lower() == host.lower() != ""
    except ValueError:
        return False
