"""How a change is answered: once a key, every refusal a sentence with its status, and a note for the audit log of what was changed.

Knows callers, statuses and notes; not what is changed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse

from reid_ray.errors import ConfigError, DataError, ReidRayError
from reid_ray.redaction import error_location
from reid_ray.serve.access.audit.audit_log import AuditedAct, AuditLog
from reid_ray.serve.access.audit.noted import noted
from reid_ray.serve.access.roles import LOCAL, Caller
from reid_ray.serve.adding.job_folder import JobStatus
from reid_ray.serve.adding.uploads import TooLargeError
from reid_ray.serve.api.problems import BadRequestError
from reid_ray.serve.operations.gallery_changes import ConflictError, NotThereError
from reid_ray.serve.operations.remembered_answers import ChangeAnswer, RememberedAnswers
from reid_ray.serve.operations.writer_turns import BusyError

KEY_HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    "description": "names the request: asked again with the same key it is answered as before, and nothing is done twice",
}
_LOG = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[ReidRayError], int], ...] = (
    (TooLargeError, 413),
    (ConflictError, 409),
    (NotThereError, 404),
    (ConfigError, 422),
    (DataError, 422),
)


@dataclass
class Done:
    """A change that was made: what is answered, and what the audit log says of it."""

    body: Mapping[str, Any]
    items: int | None = None
    ids: Sequence[str] = ()
    what: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


class ChangeDoer:
    """Makes changes for routes.

    Args:
        answers: by key.
    """

    def __init__(self, answers: RememberedAnswers) -> None:
        self._answers = answers

    async def do(self, request: Request, verb: str, asked: Mapping[str, Any], change: Callable[[], Awaitable[Done]]) -> JSONResponse:
        """The answer to a change; what the audit log says of it is noted.

        Args:
            request: who asks.
            verb: what is asked for.
            asked: the request as JSON, with which its key goes.
            change: makes it.

        Raises:
            HTTPException: it was not made, and may be asked for again (503).
            BadRequestError: a key that is none.
        """

        async def answered() -> ChangeAnswer:
            try:
                done = await change()
            except BusyError:
                raise
            except (ReidRayError, BadRequestError) as error:
                return ChangeAnswer(status_of(error), {"detail": str(error)})
            note(request, done)
            return ChangeAnswer(done.status, dict(done.body))

        named = {name: asked[name] for name in ("request", "name", "job") if isinstance(asked.get(name), str)}
        note(request, Done({}, what=named))
        try:
            key = key_of(request)
            answer = await self._answers.once(key, of=caller_of(request).name, request={"verb": verb, **asked}, do=answered)
        except BusyError as error:
            raise busy(error) from None
        except OSError as error:
            _LOG.error("a change failed: %s", error_location(error))
            raise HTTPException(503, f"the gallery cannot be written to: {error.strerror}; see the service's log") from None
        except ConfigError as error:
            raise BadRequestError(str(error)) from None
        return JSONResponse(answer.body, answer.status)


def note(request: Request, done: Done) -> None:
    """Tell the audit log of a request."""
    noted(request.scope.setdefault("state", {}), ids=done.ids, items=done.items, **done.what)


def job_recorder(audit: AuditLog | None) -> Callable[[JobStatus], None]:
    """What records, from any thread, what became of a job."""

    def record(status: JobStatus) -> None:
        if audit is not None:
            what = {"job": status.job_id, "kind": status.kind, "for": status.by, "refused": status.refused_count}
            audit.record(AuditedAct(None, "job", status.state, items=status.added, what=what, durable=True))

    return record


def caller_of(request: Request) -> Caller:
    """Who asks, as the guard found out; this machine's user where nothing guards."""
    found = request.scope.get("state", {}).get("caller")
    return found if isinstance(found, Caller) else LOCAL


def key_of(request: Request) -> str | None:
    """The request's Idempotency-Key.

    Raises:
        BadRequestError: it is none.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
        raise BadRequestError("Idempotency-Key: must have 1 to 200 printable ASCII characters")
    return key


def status_of(error: Exception) -> int:
    """The HTTP status of a refusal."""
    if isinstance(error, BadRequestError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def busy(error: BusyError) -> HTTPException:
    """503 with Retry-After."""
    return HTTPException(503, str(error), {"Retry-After": str(error.retry_after_s)})
