"""HTTP with patience: a request that may be made again is, after a while, where the service is busy, restarts, or the connection drops.

Everything that the client asks may be: a search changes nothing, and a change bears a key by which the service knows it again. Knows
requests and waiting; not what is asked.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from reid_ray.errors import ConfigError, ReidRayError
from reid_ray.serve.access.own_machine import is_loopback

if TYPE_CHECKING:
    import httpx

_AGAIN = frozenset({429, 502, 503})
_FIRST_S, _LONGEST_S = 0.2, 30.0
_SHOWN = 500
_SILENT_S = 2.0  # that a busy service is waited for before anybody is told; of one that is not there they are told at once
_OURS = "application/json"  # of whatever the application itself answers
_NO_ROUTES = "/-/routes"  # in what Ray Serve's proxy answers for an application that it does not know


class ServiceRefusedError(ReidRayError):
    """The service refuses, in a sentence; `status` is HTTP's."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class PatientHttp:
    """Asks one service.

    Args:
        url: of the service, such as https://search.example:8000.
        token: bearer token; over plain HTTP it is sent to this machine alone, unless `plain`.
        ca: file of certificates that are trusted instead of the system's.
        purpose: what searches are for, for the audit log.
        timeout_s: without a sign of life, one try ends.
        patience_s: how long a request is tried again.
        plain: send the token over a network that is not encrypted.
        told: is told in a sentence, once, that a request is being tried again, and why.

    Raises:
        ConfigError: what is no URL, or would send the token in the clear.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        ca: str | Path | None,
        purpose: str | None,
        timeout_s: float,
        patience_s: float,
        plain: bool,
        told: Callable[[str], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        import httpx

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url: {url[:200]!r} is no address of a service; give one such as http://127.0.0.1:8000")
        if token and parts.scheme == "http" and not plain and not is_loopback(parts.hostname):
            raise ConfigError(f"url: {url[:200]} would send the token unencrypted; use https, or say that this is meant (plain)")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if purpose:
            headers["Reid-Purpose"] = quote(purpose, safe=" ")
        # Never through a proxy of the environment: it would see the token.
        verify: ssl.SSLContext | bool = True
        if ca is not None:
            verify = ssl.create_default_context(cafile=str(ca))
        elif parts.scheme == "http":
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody: to read whom one may trust takes longer than a search
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False, verify=verify, transport=transport)
        self.url, self._patience_s, self._told = url, patience_s, told

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def ask(
        self, method: str, path: str, *, again: Callable[[], Mapping[str, Any]] = dict, timeout_s: float | None = None, **options: Any
    ) -> httpx.Response:
        """The answer to a request.

        Args:
            method: of the route.
            path: of the route.
            again: further options, made anew for each try: files that are read.
            timeout_s: instead of the client's.
            options: of httpx.

        Raises:
            ServiceRefusedError: the service refuses.
            ReidRayError: it does not answer.
        """
        import httpx

        start, pause = time.monotonic(), _FIRST_S
        end = start + self._patience_s
        if timeout_s is not None:
            options["timeout"] = timeout_s
        while True:
            wait_s = pause * random.uniform(0.5, 1.0)
            try:
                reply = self._http.request(method, path, **options, **again())
            except httpx.TimeoutException:
                raise ReidRayError(f"{self.url}: gave no sign of life in time; ask for less at once, or wait longer") from None
            except httpx.TransportError as error:
                if time.monotonic() + wait_s > end:
                    raise ReidRayError(f"{self.url}: does not answer ({_reason(error)}); start the service, or check the address") from None
                self._tell(f"does not answer ({_reason(error)})", end)
            else:
                if reply.is_success:
                    return reply
                refused = ServiceRefusedError(f"{self.url}: {_sentence(reply)}", status=reply.status_code)
                wait_s = max(wait_s, _retry_after(reply))
                if not _is_for_now(reply) or time.monotonic() + wait_s > end:
                    raise refused
                if time.monotonic() - start > _SILENT_S:
                    self._tell(f"is busy or restarts ({reply.status_code})", end)
            time.sleep(wait_s)
            pause = min(2 * pause, _LONGEST_S)

    def _tell(self, why: str, end: float) -> None:
        told, self._told = self._told, None
        if told is not None:
            told(f"{self.url}: {why}; it is asked again for up to {max(0.0, end - time.monotonic()):.0f} s")


def _is_for_now(reply: httpx.Response) -> bool:
    """Whether another try may succeed: the service says so, or something between it and us that lost it (Ray's proxy, a replica)."""
    if reply.status_code in _AGAIN:
        return True
    if reply.headers.get("content-type", "").startswith(_OURS):
        return False
    # Ray's proxy, after it died, answers for a while before it has heard of any application.
    return reply.status_code >= 500 or (reply.status_code == 404 and _NO_ROUTES in reply.text)


def _retry_after(reply: httpx.Response) -> float:
    try:
        return min(float(reply.headers.get("retry-after", "0")), _LONGEST_S)
    except ValueError:
        return 0.0


def _sentence(reply: httpx.Response) -> str:
    try:
        detail = reply.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"answered {reply.status_code}: {reply.text[:_SHOWN]}"
    return f"{detail} ({reply.status_code})"


def _reason(error: httpx.TransportError) -> str:
    return str(error)[:_SHOWN] or type(error).__name__
