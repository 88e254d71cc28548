"""The labelling page over HTTP: its files, questions, decisions and pictures, for this machine alone.

Every answer has the headers of the service. A request must come from this machine by its own name, and what changes something must be
JSON of this very page: another site's page in the same browser can neither read nor say anything. Knows HTTP; not what decisions mean.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from reid_ray.errors import DataError
from reid_ray.serve.access.own_machine import why_remote
from reid_ray.serve.access.refusals import Refusal, protected, refuse
from reid_ray.serve.api.problems import add_handlers
from reid_ray.serve.same_person.label_desk import LabelDesk
from reid_ray.serve.web.page import FOLDER as SERVICE_PAGE
from reid_ray.serve.web.page import POLICY, PageFile, read_page_files

_FROM_SERVICE = ("base.css", "dom.js", "icon.svg")
_MOST_BYTES = 10_000  # of a decision
Who = Annotated[str, StringConstraints(pattern=r"^[\w-]{1,40}$")]


class DecisionIn(BaseModel):
    """A decision about pictures."""

    model_config = ConfigDict(extra="forbid")
    says: Literal["same", "different", "skip", "out"]
    pictures: list[int] = Field(min_length=1, max_length=2)
    who: Who


class UndoIn(BaseModel):
    """Who takes the last decision back."""

    model_config = ConfigDict(extra="forbid")
    who: Who


class DecidedOut(BaseModel):
    """The number of what was decided, or taken back; None if there was nothing."""

    number: int | None


def label_application(desk: LabelDesk) -> Any:
    """The ASGI application."""
    api = FastAPI(title="reid-ray label", openapi_url=None, docs_url=None, redoc_url=None)
    add_handlers(api)
    files = _page_files()

    def answer(name: str) -> Response:
        file = files.get(name)
        if file is None:
            raise HTTPException(404, f"the page has no file {name[:100]}")
        return Response(file.data, media_type=file.media_type, headers={"Cache-Control": "no-cache", "Content-Security-Policy": POLICY})

    @api.get("/")
    def page() -> Response:
        return answer("label.html")

    @api.get("/page/{name}")
    def page_file(name: str) -> Response:
        return answer(name)

    @api.get("/label/question")
    def question(who: Who) -> dict[str, Any]:
        return desk.question(who)

    @api.get("/label/pictures/{row}")
    def picture(row: int) -> Response:
        jpeg = desk.picture(row)
        if jpeg is None:
            raise HTTPException(404, f"there is no picture {row}")
        return Response(jpeg, media_type="image/jpeg")

    @api.post("/label/decisions")
    def decide(said: DecisionIn) -> DecidedOut:
        try:
            return DecidedOut(number=desk.decide(said.says, said.pictures, said.who))
        except DataError as error:
            raise HTTPException(422, str(error)) from None

    @api.post("/label/undo")
    def undo(said: UndoIn) -> DecidedOut:
        return DecidedOut(number=desk.undo(said.who))

    return _OwnMachineOnly(api)


def why_foreign(method: str, headers: dict[bytes, str]) -> str | None:
    """Why a request may be another site's, sent by the user's browser; None if it is not, or changes nothing.

    Args:
        method: of the request.
        headers: by lower-case name.
    """
    if method in ("GET", "HEAD"):
        return None
    if headers.get(b"content-type", "").partition(";")[0].strip().lower() != "application/json":
        return "the request is no application/json"
    if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return "the request is another site's"
    origin = headers.get(b"origin")
    if origin is not None and urlsplit(origin).netloc != headers.get(b"host", ""):
        return "the request is another site's"
    return None


class _OwnMachineOnly:
    """Refuses whoever is not this machine's own user on this page; gives every answer the service's headers."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        request_id = secrets.token_hex(8).encode()
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        remote = why_remote(scope.get("client"), headers)
        foreign = why_foreign(scope["method"], headers)
        length = headers.get(b"content-length", "0")
        if remote is not None or foreign is not None:
            said = foreign if remote is None else f"this page is asked by this machine alone, {remote}"
            await refuse(send, Refusal(403, f"{said}"), request_id)
            return
        if b"transfer-encoding" in headers or not length.isdigit() or int(length) > _MOST_BYTES:
            await refuse(send, Refusal(413, f"a decision has at most {_MOST_BYTES} bytes, and says how many"), request_id)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": protected(message.get("headers", ()), request_id)}
            await send(message)

        await self._app(scope, receive, guarded)


def _page_files() -> dict[str, PageFile]:
    own = read_page_files(Path(__file__).parent / "web")
    return own | {name: file for name, file in read_page_files(SERVICE_PAGE).items() if name in _FROM_SERVICE}
