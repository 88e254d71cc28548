"""ASGI middleware that tells searches which are one too many at once, before their bodies are read: to say no must stay cheap."""

from __future__ import annotations

import json
from typing import Any

from reid_ray.serve.operations.search_operations import SearchOperations

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
            and self._operations.is_full
            and scope["path"].removeprefix(scope.get("root_path", "")).startswith(_SEARCHES)
        ):
            await send({"type": "http.response.start", "status": 503, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})
            return
        await self._app(scope, receive, send)
