"""Middleware that answers plain questions (POST /v1/search as JSON) without the framework's layers, which take as long as a small search.

The question's schema, its answer and its errors are those of the route. A body that is no valid question is handed on to it, so that what
is said of such a one is said in one place. Knows ASGI and questions; not who asks.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from reid_ray.serve.access.refusals import Message, Receive, Send
from reid_ray.serve.api.answers import JSONAnswer
from reid_ray.serve.api.problems import problem_of
from reid_ray.serve.api.schema import Question
from reid_ray.serve.api.search_routes import SEARCH_PATH, answered
from reid_ray.serve.operations.search_operations import SearchOperations

_JSON_TYPE = (b"content-type", b"application/json")  # as it is written nearly always; the route understands other ways, too


class DirectSearch:
    """Answers plain questions, and hands every other request to `app`, which has the route itself."""

    path = SEARCH_PATH  # what metrics call it by

    def __init__(self, app: Any, *, operations: SearchOperations) -> None:
        self._app, self._operations = app, operations

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http" or scope["path"] != self.path or scope["method"] != "POST" or _JSON_TYPE not in scope["headers"]:
            await self._app(scope, receive, send)
            return
        body = await _whole_body(receive)
        try:
            question = Question.model_validate(json.loads(body))
        except (ValueError, ValidationError, RecursionError):
            await self._app(scope, _first(body, receive), send)
            return
        scope["route"] = self
        try:
            answer: Any = JSONAnswer(await answered(self._operations, scope["state"], question))
        except Exception as error:
            answer = problem_of(error)
            if answer is None:
                raise
        await answer(scope, receive, send)


async def _whole_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _first(body: bytes, receive: Receive) -> Receive:
    """ASGI's receive for whoever is to read a body that was read already."""
    read: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return read.pop() if read else await receive()

    return receive_again
