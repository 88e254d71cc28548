"""Tells searches which are one too many at once, before their bodies are read, and where it can before they become requests at all.

To say no must stay cheap: at twice what a service can answer it is said as often as anything else. Knows ASGI, heads of requests, and
whether the service is full.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from reid_ray.serve.access.refusals import protected
from reid_ray.serve.access.request_numbers import RequestNumbers
from reid_ray.serve.api.prometheus import ServiceMetrics
from reid_ray.serve.operations.search_operations import SearchOperations
from reid_ray.serve.process.strict_http import EarlyAnswer, Headers

_SEARCHES = "/v1/search"
_BODY = json.dumps({"detail": "too many queries are waiting; try again later"}).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode()), (b"retry-after", b"1")]


class LoadShedding:
    """Lets searches through to `app` while the service takes more, and everything else always."""

    def __init__(self, app: Any, *, operations: SearchOperations) -> None:
        self._app, self._operations = app, operations

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI entry."""
        if (
            scope["type"] == "http"
            and self._operations.is_full()
            and scope["path"].removeprefix(scope.get("root_path", "")).startswith(_SEARCHES)
        ):
            await send({"type": "http.response.start", "status": 503, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})
            return
        await self._app(scope, receive, send)


class EarlyShedding:
    """The same for a server that asks once it has read a request's head: who asks is not looked at, and the request is counted, no more.

    Heads are read by the handful, before any of these requests waits for a batch: those that are let through count from then on.
    """

    def __init__(self, operations: SearchOperations, metrics: ServiceMetrics) -> None:
        self._operations, self._metrics, self._numbers = operations, metrics, RequestNumbers()
        self._coming = 0

    def __call__(self, method: bytes, target: bytes, headers: Headers) -> EarlyAnswer | None:
        """503, or None where the search is to be asked on."""
        if method != b"POST" or not target.startswith(_SEARCHES.encode()):
            return None
        if not self._operations.is_full(self._coming):
            if not self._coming:  # they wait by the event loop's next turn, if their bodies are there
                asyncio.get_running_loop().call_soon(self._have_come)
            self._coming += 1
            return None
        self._metrics.count_refused(503)
        given = next((value.decode("latin-1") for name, value in headers if name == b"x-request-id"), "")
        return EarlyAnswer(503, protected(_HEADERS, self._numbers.of(given).encode()), _BODY)

    def _have_come(self) -> None:
        self._coming = 0
