"""Routes of add jobs: an upload in, a job out, whose progress is asked for, waited for, or cancelled."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse

from reid_ray.errors import ConfigError, ReidRayError
from reid_ray.gallery.bulk.erased_since import ErasuresBefore
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.route_table import RouteRule
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.job_folder import JobStatus
from reid_ray.serve.adding.uploads import Upload
from reid_ray.serve.adding.write_operations import WriteOperations
from reid_ray.serve.api.problems import BadRequestError, problems
from reid_ray.serve.api.upkeep.change_answers import KEY_HEADER, ChangeDoer, Done, busy, caller_of, key_of, note, status_of
from reid_ray.serve.api.upkeep.multipart_uploads import FormReader
from reid_ray.serve.api.upkeep.write_schema import JobOut, JobsOut, job_out
from reid_ray.serve.operations.writer_turns import BusyError

_ITEMS_BYTES = 16 << 20
_FORM_BYTES = 1 << 20  # of a form's own lines
_LOOK_EVERY_S = (0.05, 0.5)
_Wait = Annotated[float, Query(ge=0, le=60, allow_inf_nan=False, description="wait for its end for so long, seconds")]
_Id = Annotated[str, Path(max_length=200)]
_Limit = Annotated[int, Query(ge=1, le=1000, description="how many")]
_Before = Annotated[str | None, Query(max_length=300, description="only earlier ones: `before` of the answer before")]
_Of = Annotated[Literal["all", "unfinished"], Query(description="unfinished: only those that wait or run")]
_REFUSED_LISTED = 10
_FORM = {
    "type": "object",
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "pictures, each with a name of its own"},
        "items": {
            "type": "string",
            "description": "JSON: [{file, item_id?, column: value, ...}]; without it each picture is added, named by its bytes",
        },
        "table": {
            "type": "string",
            "format": "binary",
            "description": "a Parquet table of pictures or of embedded rows instead",
        },
        "caption": {"type": "string", "enum": ["true", "false"], "description": "have the pictures captioned first"},
    },
}


def job_rules(config: AddingConfig) -> dict[tuple[str, str], RouteRule]:
    """What holds for these routes."""
    body = (config.most_mb << 20) + _ITEMS_BYTES + _FORM_BYTES + 1_024 * config.most_files
    return {
        ("POST", "/v1/jobs"): RouteRule(AccessRole.WRITE, body, spooled=True, verb="add"),
        ("GET", "/v1/jobs"): RouteRule(AccessRole.WRITE),
        ("GET", "/v1/jobs/{job_id}"): RouteRule(AccessRole.WRITE),
        ("DELETE", "/v1/jobs/{job_id}"): RouteRule(AccessRole.WRITE, 64 << 10, verb="cancel"),
    }


def job_routes(writing: WriteOperations, doer: ChangeDoer) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    board = writing.board
    body = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}, "parameters": [KEY_HEADER]}

    @router.post("", response_model=JobOut, status_code=202, responses=problems(), openapi_extra=body)
    async def add(request: Request, wait: _Wait = 0.0) -> JSONResponse:
        """Add pictures, or the rows of a table: a job, which embeds them beside the searches."""
        try:
            status, ids = await _received(request, writing)
        except BusyError as error:
            raise busy(error) from None
        except (ReidRayError, BadRequestError) as error:
            raise BadRequestError(str(error), status=status_of(error)) from None
        except OSError as error:
            raise HTTPException(503, f"the upload cannot be kept: {error.strerror}; try again later", {"Retry-After": "60"}) from None
        what = {"job": status.job_id, "kind": status.kind, "captioned": status.captioned}
        note(request, Done({}, items=status.total, ids=ids, what=what))
        board.announce()
        return await _waited(writing, status, wait, status_code=202)

    @router.get("", response_model=JobsOut, responses=problems())
    async def jobs(limit: _Limit = 100, before: _Before = None, of: _Of = "all") -> JSONResponse:
        """Jobs that wait, run, or have ended lately, the latest first; all that one refused is told where it is asked for alone."""
        found, following = await asyncio.to_thread(board.page, limit, before=before, unfinished=of == "unfinished")
        listed = [job_out(each, now=time.time(), refused=_REFUSED_LISTED).model_dump() for each in found]
        return JSONResponse({"jobs": listed, "before": following})

    @router.get("/{job_id}", response_model=JobOut, responses=problems(404))
    async def job(job_id: _Id, wait: _Wait = 0.0) -> JSONResponse:
        """How far a job is."""
        return await _waited(writing, await _known(writing, job_id), wait)

    @router.delete("/{job_id}", response_model=JobOut, responses=problems(404, 409), openapi_extra={"parameters": [KEY_HEADER]})
    async def cancel(job_id: _Id, request: Request) -> JSONResponse:
        """Have a job end after its batch; what it added stays. Who may not compact may not end a compaction that waits, either."""

        async def change() -> Done:
            asked = await asyncio.to_thread(board.status, job_id)
            if asked.kind == "compact" and caller_of(request).role < AccessRole.ADMIN:
                raise BadRequestError(f"job {job_id}: compacts the gallery, and only the role admin may cancel it", status=403)
            status = await asyncio.to_thread(board.cancel, job_id)
            return Done(job_out(status, now=time.time()).model_dump(), what={"job": job_id})

        return await doer.do(request, "cancel", {"job": job_id}, change)

    return router


async def _received(request: Request, writing: WriteOperations) -> tuple[JobStatus, list[str]]:
    """Read an upload, and make it a job. Also gives the ids of its pictures.

    Raises:
        ReidRayError, BadRequestError: why it is none.
    """
    board, key, by = writing.board, key_of(request), caller_of(request).name
    about = await writing.about()
    begun = board.new_status("pictures", by=by, before=ErasuresBefore.of(about), key=key)
    upload = await asyncio.to_thread(board.receive)
    try:
        limits = {"items": _ITEMS_BYTES, "caption": 5}
        form = FormReader(request.headers.get("content-type", ""), files=frozenset({"image", "table"}), fields=limits, upload=upload)
        await form.read(request.stream())
        return await asyncio.to_thread(_made, form, upload, begun, writing), upload.item_ids
    except BaseException:
        upload.discard()
        raise


def _made(form: FormReader, upload: Upload, begun: JobStatus, writing: WriteOperations) -> JobStatus:
    caption = form.values.get("caption", "false")
    if caption not in ("true", "false"):
        raise ConfigError("caption: must be true or false")
    if caption == "true":
        begun = writing.board.with_captions(begun)
    about = writing.about_now()
    if "table" in form.kinds:
        if "items" in form.values or "image" in form.kinds:
            raise ConfigError("table: goes with no image and no items; its columns say what is known")
        begun.kind = "table"
        return upload.finish_table(begun, schema=about.schema, dim=about.manifest.dim)
    return upload.finish_pictures(begun, _items(form.values.get("items")), about.schema)


def _items(text: str | None) -> list[dict[str, Any]] | None:
    if text is None:
        return None
    try:
        items = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ConfigError("items: is no JSON; send a list of objects, such as [{file, item_id, camera_id}]") from None
    if not isinstance(items, list) or not items or not all(isinstance(each, dict) for each in items):
        raise ConfigError("items: must be a list of objects, such as [{file, item_id, camera_id}]")
    return items


def _no_number(name: str) -> float:
    raise ValueError(name)


async def _known(writing: WriteOperations, job_id: str) -> JobStatus:
    try:
        return await asyncio.to_thread(writing.board.status, job_id)
    except ReidRayError as error:
        raise BadRequestError(str(error), status=status_of(error)) from None


async def _waited(writing: WriteOperations, status: JobStatus, wait_s: float, *, status_code: int = 200) -> JSONResponse:
    end, pause = time.monotonic() + wait_s, _LOOK_EVERY_S[0]
    while not status.is_finished and (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LOOK_EVERY_S[1])
        status = await _known(writing, status.job_id)
    return JSONResponse(job_out(status, now=time.time()).model_dump(), status_code)
