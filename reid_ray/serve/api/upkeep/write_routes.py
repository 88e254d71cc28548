"""Routes that change the gallery: deleting, erasing, snapshots, generations, compacting; a body or a path in, a sentence or JSON out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse

from reid_ray.gallery.bulk.erased_since import ErasuresBefore
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.route_table import RouteRule
from reid_ray.serve.adding.write_operations import WriteOperations
from reid_ray.serve.api.problems import BadRequestError, problems
from reid_ray.serve.api.upkeep.change_answers import KEY_HEADER, ChangeDoer, Done, caller_of, key_of
from reid_ray.serve.api.upkeep.write_schema import (
    DeletedOut,
    EraseIn,
    ErasureOut,
    ErasuresOut,
    GenerationsOut,
    JobOut,
    SnapshotIn,
    StandOut,
    WhichIn,
    job_out,
)
from reid_ray.serve.operations.gallery_changes import GalleryStand, NotThereError

_IDS_BYTES = 16 << 20
_SMALL = 64 << 10
WRITE_RULES: dict[tuple[str, str], RouteRule] = {
    ("POST", "/v1/items/delete"): RouteRule(AccessRole.WRITE, _IDS_BYTES, verb="delete"),
    ("POST", "/v1/items/erase"): RouteRule(AccessRole.ADMIN, _IDS_BYTES, verb="erase"),
    ("GET", "/v1/erasures"): RouteRule(AccessRole.ADMIN),
    ("GET", "/v1/erasures/{request}"): RouteRule(AccessRole.ADMIN, verb="erasures"),
    ("GET", "/v1/generations"): RouteRule(AccessRole.ADMIN),
    ("POST", "/v1/snapshots"): RouteRule(AccessRole.ADMIN, _SMALL, verb="snapshot"),
    ("POST", "/v1/snapshots/{name}/restore"): RouteRule(AccessRole.ADMIN, _SMALL, verb="restore"),
    ("DELETE", "/v1/snapshots/{name}"): RouteRule(AccessRole.ADMIN, _SMALL, verb="drop"),
    ("POST", "/v1/compact"): RouteRule(AccessRole.ADMIN, _SMALL, verb="compact"),
}
_KEYED: dict[str, Any] = {"parameters": [KEY_HEADER]}
_Name = Annotated[str, Path(max_length=200)]


def write_routes(writing: WriteOperations, doer: ChangeDoer) -> APIRouter:
    """The routes that change."""
    router = APIRouter(prefix="/v1", tags=["changes"])
    _add_removing(router, writing, doer)
    _add_erasures(router, writing)
    _add_generations(router, writing, doer)
    return router


def _add_removing(router: APIRouter, writing: WriteOperations, doer: ChangeDoer) -> None:
    changes = writing.changes

    @router.post("/items/delete", response_model=DeletedOut, responses=problems(409), openapi_extra=_KEYED)
    async def delete(asked: WhichIn, request: Request) -> JSONResponse:
        """Hide items for good; their bytes go with the next compaction."""

        async def change() -> Done:
            ids, stand = await asyncio.wrap_future(changes.delete(asked.which()))
            return Done({"deleted": len(ids), **asdict(stand)}, items=len(ids), ids=ids)

        return await doer.do(request, "delete", asked.model_dump(), change)

    @router.post("/items/erase", response_model=ErasureOut, responses=problems(409), openapi_extra=_KEYED)
    async def erase(asked: EraseIn, request: Request) -> JSONResponse:
        """Hide items at once, and have them gone from every file, snapshots too, by the deadline or `now`; with a receipt."""

        async def change() -> Done:
            state, ids = await asyncio.wrap_future(changes.erase(asked.which(), request=asked.request, now=asked.now))
            return Done(asdict(state), items=state.items, ids=ids, what={"request": asked.request, "now": asked.now, "done": state.done})

        return await doer.do(request, "erase", asked.model_dump(), change)


def _add_erasures(router: APIRouter, writing: WriteOperations) -> None:
    @router.get("/erasures", response_model=ErasuresOut, responses=problems())
    async def erasures() -> JSONResponse:
        """All erasures: those to be carried out first, then the latest."""
        return JSONResponse({"erasures": [asdict(each) for each in await writing.erasures()]})

    @router.get("/erasures/{request}", response_model=ErasureOut, responses=problems(404))
    async def erasure(request: _Name) -> JSONResponse:
        """What became of an erasure, with its receipt once it is carried out."""
        try:
            return JSONResponse(asdict(await writing.erasure(request)))
        except NotThereError as error:
            raise BadRequestError(str(error), status=404) from None


def _add_generations(router: APIRouter, writing: WriteOperations, doer: ChangeDoer) -> None:
    changes = writing.changes

    @router.get("/generations", response_model=GenerationsOut, responses=problems())
    async def generations() -> JSONResponse:
        """The generation that counts: its segments, its log, and the snapshots."""
        return JSONResponse(await writing.generations())

    @router.post("/snapshots", response_model=StandOut, responses=problems(409), openapi_extra=_KEYED)
    async def snapshot(asked: SnapshotIn, request: Request) -> JSONResponse:
        """Keep the gallery as it is now under a name."""
        return await doer.do(request, "snapshot", asked.model_dump(), lambda: _stand(changes.snapshot(asked.name), asked.name))

    @router.post("/snapshots/{name}/restore", response_model=StandOut, responses=problems(404), openapi_extra=_KEYED)
    async def restore(name: _Name, request: Request) -> JSONResponse:
        """Go back to a snapshot; what was erased stays erased."""
        return await doer.do(request, "restore", {"name": name}, lambda: _stand(changes.restore(name), name))

    @router.delete("/snapshots/{name}", response_model=StandOut, responses=problems(404), openapi_extra=_KEYED)
    async def drop(name: _Name, request: Request) -> JSONResponse:
        """Forget a snapshot."""
        return await doer.do(request, "drop", {"name": name}, lambda: _stand(changes.drop(name), name))

    @router.post("/compact", response_model=JobOut, status_code=202, responses=problems(), openapi_extra=_KEYED)
    async def compact(request: Request) -> JSONResponse:
        """Carry out erasures and retention, drop what was deleted, merge small segments: a job."""
        by, key = caller_of(request).name, key_of(request)
        about = await writing.about()

        async def change() -> Done:
            status = await asyncio.to_thread(writing.board.add_compaction, by=by, before=ErasuresBefore.of(about), key=key)
            return Done(job_out(status, now=time.time()).model_dump(), what={"job": status.job_id}, status=202)

        return await doer.do(request, "compact", {}, change)


async def _stand(future: Any, name: str) -> Done:
    stand: GalleryStand = await asyncio.wrap_future(future)
    return Done(asdict(stand), what={"name": name})
