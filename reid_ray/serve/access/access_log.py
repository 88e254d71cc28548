"""The access log: a line of JSON for each request, for whoever operates the service. The record that counts is the audit log.

It says who asked which route, from where, with which outcome and for how long; what was searched for only where the configuration says so.
Knows ASGI and a file; not what is asked.
"""

from __future__ import annotations

import json
import logging
import os
import time
from functools import partial
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from typing import Any

from reid_ray.serve.access.audit.chain_files import now_in_words
from reid_ray.serve.access.audit.noted import note_in
from reid_ray.serve.access.config import AccessLogConfig

_OF_THE_USER = 0o600


class AccessLog:
    """Logs what `app` answers.

    Args:
        app: the ASGI application.
        config: whereto; a path is set.
    """

    def __init__(self, app: Any, *, config: AccessLogConfig) -> None:
        assert config.path is not None
        self._app, self._texts = app, config.texts
        self._file = _Appended(config.path, delay=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None
        started = time.perf_counter()

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._log(scope, status, round((time.perf_counter() - started) * 1e3, 1))

    def _log(self, scope: Any, status: int | None, ms: float) -> None:
        state = scope.get("state", {})
        caller, note = state.get("caller"), note_in(state)
        line: dict[str, Any] = {"at": now_in_words(), "from": (scope.get("client") or ("unknown",))[0]}
        line |= {"who": None if caller is None else caller.name, "method": scope["method"][:20]}
        line |= {"route": getattr(scope.get("route"), "path", None), "status": status, "ms": ms, "request": state.get("request_id")}
        if self._texts and note.sought:
            line["texts"] = [each for each in note.sought if isinstance(each, str)]
        words = json.dumps(line, separators=(",", ":"))
        self._file.handle(logging.LogRecord("access", logging.INFO, __file__, 0, words, None, None))


class _Appended(WatchedFileHandler):
    """A file of this user's that is begun anew when it was moved away."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=partial(os.open, mode=_OF_THE_USER))
