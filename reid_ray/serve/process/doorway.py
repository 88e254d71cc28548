"""The ASGI application of a process that is still starting: it lives, and everything else has to wait; then the real one answers.

Importing the application takes a second, a model more; who watches the process need not wait for either. Knows nothing of what is served.
"""

from __future__ import annotations

import json
from typing import Any

_LIVE = "/v1/live"


class Doorway:
    """Hands requests to `application` once there is one.

    Attributes:
        application: the ASGI application; None while it starts.
    """

    def __init__(self) -> None:
        self.application: Any = None

    @property
    def state(self) -> Any:
        """The application's, once there is one."""
        return getattr(self.application, "state", None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI entry."""
        if self.application is not None:
            await self.application(scope, receive, send)
        elif scope["type"] == "http":
            live = scope["path"] == _LIVE and scope["method"] in ("GET", "HEAD")
            said = {"status": "ok"} if live else {"detail": "the service is starting; try again in a moment"}
            body = json.dumps(said).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200 if live else 503, "headers": [*headers, (b"retry-after", b"1")]})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
