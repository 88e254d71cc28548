"""What is answered when there is no answer: status codes, sentences, and how schemas' errors become one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from reid_ray.serve.api.schema import ProblemOut
from reid_ray.serve.operations.search_operations import (
    IncompleteError,
    LateError,
    OverloadedError,
    QueryFailedError,
    RefusedError,
    StartingError,
)


class BadRequestError(Exception):
    """A question that cannot be answered as asked; the message says why, in a sentence. `status` is the HTTP status."""

    def __init__(self, message: str, *, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


_MEANINGS = {
    400: "the request is malformed",
    401: "no valid token",
    403: "not allowed for this caller",
    404: "there is no such thing",
    408: "the body did not arrive in time",
    409: "the gallery is not as the request expects",
    413: "the body is too large",
    422: "the request cannot be answered as asked",
    429: "this caller asks too often",
    500: "the request failed inside the service",
    503: "the service starts, has too many requests waiting, or a share of the gallery or its encoders are lost",
    504: "no answer in time",
}
_MOST_CHARS = 500
_SEND_JSON = "; send an object in JSON, with the header Content-Type: application/json"
_OF_FASTAPI, _UNREADABLE = "There was an error parsing the body", "the request body: cannot be read as JSON; it may be nested too deeply"
EVERYWHERE = (400, 401, 403, 408, 413, 422, 429, 500, 503, 504)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` of a route: what any may answer with, and the statuses given."""
    return {status: {"model": ProblemOut, "description": _MEANINGS[status]} for status in sorted({*EVERYWHERE, *statuses})}


_OF_OPERATIONS: dict[type[Exception], tuple[int, str, dict[str, str]]] = {
    StartingError: (503, "the service is starting; try again in a moment", {"Retry-After": "1"}),
    OverloadedError: (503, "too many queries are waiting; try again later", {"Retry-After": "1"}),
    IncompleteError: (
        503,
        "a share of the gallery, or its encoders, are lost for now, or it is of another encoder by now; try again later",
        {"Retry-After": "5"},
    ),
    LateError: (504, "no answer in time; try again later", {}),
    QueryFailedError: (500, "the query failed inside the service; its log says where", {}),
}


class _Problem(JSONResponse):
    """{"detail": sentence}: of bounded length, and valid Unicode, whatever of a request it repeats."""

    def __init__(self, detail: str, status: int, headers: Mapping[str, str] | None = None) -> None:
        shown = detail if len(detail) <= _MOST_CHARS else f"{detail[:_MOST_CHARS]}..."
        super().__init__({"detail": shown.encode("utf-8", "backslashreplace").decode()}, status, headers)


def add_handlers(api: FastAPI) -> None:
    """Have every error of the application answered as {"detail": sentence}."""
    for kind in (*_OF_OPERATIONS, RefusedError, BadRequestError):
        api.add_exception_handler(kind, _of_question)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)


def sentence_of(error: Exception) -> str:
    """What is said of an error of an operation."""
    return _OF_OPERATIONS[type(error)][1] if type(error) in _OF_OPERATIONS else str(error)


def problem_of(error: Exception) -> JSONResponse | None:
    """What is answered where a question is answered with an error; None for one that is nobody's but the service's."""
    if type(error) in _OF_OPERATIONS:
        status, detail, headers = _OF_OPERATIONS[type(error)]
        return _Problem(detail, status, headers)
    if isinstance(error, RefusedError | BadRequestError):
        return _Problem(str(error), error.status if isinstance(error, BadRequestError) else 422)
    return None


async def _of_question(_: Request, error: Exception) -> JSONResponse:
    found = problem_of(error)
    assert found is not None
    return found


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if any(tuple(each["loc"]) == ("body",) for each in errors) and not kind.endswith(("/json", "+json")):
        return _Problem(f"the request body: is {'not said to be JSON' if kind else 'of no stated type'}{_SEND_JSON}", 422)
    return _Problem(sentence(errors), 422)


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _Problem(_UNREADABLE if error.detail == _OF_FASTAPI else str(error.detail), error.status_code, error.headers)


def sentence(errors: Sequence[Any]) -> str:
    """Pydantic's errors as one line that names each field and never repeats the input, which may be a megabyte."""
    parts = []
    for error in errors[:5]:
        if error["type"] == "json_invalid" and error["loc"]:
            why = error.get("ctx", {}).get("error", "")[:100]
            parts.append(f"the request body: is no JSON from its character {error['loc'][-1]} on ({why})")
            continue
        field = ".".join(str(part) for part in error["loc"] if part != "body")[:100] or "the request body"
        parts.append(f"{field}: {error['msg'][:200]}")
    return "; ".join(parts) + (f"; and {len(errors) - 5} more" if len(errors) > 5 else "")
