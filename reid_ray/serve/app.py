"""HTTP API of the search service: a FastAPI application in front of a SearchBackend.

Knows routes, status codes and the page; not models, indexes or Ray Serve: those stand behind the SearchBackend protocol.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from reid_ray import __version__
from reid_ray.pages import render
from reid_ray.redaction import error_location
from reid_ray.retrieval.search import Answer, Query
from reid_ray.retrieval.searched_folder import Thumbnails
from reid_ray.serve.config import ServeConfig
from reid_ray.serve.guard import Guard
from reid_ray.serve.schema import (
    BadRequestError,
    HitOut,
    ImageQuestion,
    InfoOut,
    LatencyOut,
    ProblemOut,
    SearchOut,
    TextQuestion,
    checked_image,
    checked_k,
    checked_text,
    decoded_base64,
    sentence,
)
from reid_ray.versions import numbered

_HEALTH_TIMEOUT_S = 5.0
_LOG = logging.getLogger(__name__)
# The page is one file: nothing is loaded from elsewhere, and a file name in the gallery cannot smuggle a script in.
_PAGE_POLICY = "default-src 'none'; connect-src 'self'; img-src 'self' blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemOut, "description": meaning}
    for status, meaning in {
        401: "no valid token",
        500: "the query failed inside the service",
        413: "the body is too large",
        422: "the query cannot be answered as asked",
        503: "too many queries are waiting, or a share of the gallery is lost",
        504: "no answer in time",
    }.items()
}


class SearchBackend(Protocol):
    """Interface (protocol) of the search backend that the application calls."""

    def search(self, query: Query) -> Awaitable[Answer]:
        """Answer one query."""
        ...

    def describe(self) -> Awaitable[dict[str, Any]]:
        """SearchEngine.describe()."""
        ...


class OverloadedError(Exception):
    """A searcher has too many queries waiting and takes no more."""


class IncompleteError(Exception):
    """A part of the gallery cannot be searched for now."""


def make_api(searcher: SearchBackend, thumbnails: Thumbnails, limits: ServeConfig, *, token_digest: bytes | None) -> FastAPI:
    """The application: searching, thumbnails, health, OpenAPI and the page."""
    api = FastAPI(
        title="reid_ray search",
        version=__version__,
        description="Find people in a gallery by text or by image.",
        docs_url=None,  # Swagger's page would load scripts from another host
        redoc_url=None,
    )
    api.add_middleware(Guard, limits=limits, token_digest=token_digest)
    api.add_exception_handler(BadRequestError, _bad_request)
    api.add_exception_handler(RequestValidationError, _invalid)
    _add_search_routes(api, searcher, limits)
    _add_other_routes(api, searcher, thumbnails, limits)
    return api


def _add_search_routes(api: FastAPI, searcher: SearchBackend, limits: ServeConfig) -> None:
    async def ask(query: Query) -> SearchOut:
        started = time.perf_counter()
        answer = await _in_time(searcher.search(query), limits.timeout_s)
        if answer.refused is not None:
            raise BadRequestError(f"image: {answer.refused}" if query.image is not None else f"text: {answer.refused}")
        return _search_out(answer, query.k, total_ms=(time.perf_counter() - started) * 1e3)

    @api.post("/search/text", responses=_PROBLEMS)
    async def search_by_text(question: TextQuestion) -> SearchOut:
        """Rank the gallery by a description."""
        text = checked_text(question.text, limits)
        return await ask(Query(k=checked_k(question.k, limits), text=text, camera_ids=_cameras(question.camera_ids)))

    @api.post("/search/image", responses=_PROBLEMS)
    async def search_by_image(
        image: Annotated[UploadFile, File(description="JPEG, PNG, WebP, BMP, GIF or TIFF file")],
        k: Annotated[int | None, Form(ge=1, description="number of hits")] = None,
        camera_ids: Annotated[list[int] | None, Form(description="only items of these cameras; may be repeated")] = None,
    ) -> SearchOut:
        """Rank the gallery by a picture, sent as multipart/form-data."""
        data = checked_image(await image.read(), limits)
        return await ask(Query(k=checked_k(k, limits), image=data, camera_ids=_cameras(camera_ids)))

    @api.post("/search/image/base64", responses=_PROBLEMS)
    async def search_by_base64_image(question: ImageQuestion) -> SearchOut:
        """Rank the gallery by a picture, sent as base64 in JSON."""
        data = checked_image(decoded_base64(question.image_base64), limits)
        return await ask(Query(k=checked_k(question.k, limits), image=data, camera_ids=_cameras(question.camera_ids)))


def _add_other_routes(api: FastAPI, searcher: SearchBackend, thumbnails: Thumbnails, limits: ServeConfig) -> None:
    @api.get(
        "/thumbnails/{name:path}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}, 404: {"model": ProblemOut}}
    )
    def thumbnail(name: str) -> Response:
        """The small picture of a gallery item, by the name that a hit gives."""
        data = thumbnails.named(name)
        if data is None:
            raise HTTPException(404, f"no item {name[:200]}: a hit says where its thumbnail lies")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})

    @api.get("/info")
    async def info() -> InfoOut:
        """What the service searches, and its limits."""
        facts = {**numbered("service"), **await _in_time(searcher.describe(), limits.timeout_s)}
        return InfoOut(**facts, **{name: getattr(limits, name) for name in InfoOut.model_fields if name not in facts})

    @api.head("/health", include_in_schema=False)
    @api.get("/health", responses={503: {"model": ProblemOut}})
    async def health() -> dict[str, str]:
        """200 while searches are answered; needs no token and says nothing else."""
        try:
            await _in_time(searcher.describe(), _HEALTH_TIMEOUT_S)
        except HTTPException as error:
            raise HTTPException(503, "the searcher does not answer") from error
        return {"status": "ok"}

    page = render("search", title="Person search")

    @api.head("/", include_in_schema=False)
    @api.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def search_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY, "X-Content-Type-Options": "nosniff"})


async def _in_time(answer: Awaitable[Any], timeout_s: float) -> Any:
    try:
        return await asyncio.wait_for(answer, timeout_s)
    except TimeoutError:
        raise HTTPException(504, f"no answer within {timeout_s:g} s; try again later") from None
    except OverloadedError:
        raise HTTPException(503, "too many queries are waiting; try again later", {"Retry-After": "1"}) from None
    except IncompleteError:
        raise HTTPException(503, "a share of the gallery is lost for now; try again later", {"Retry-After": "5"}) from None
    except Exception as error:  # noqa: BLE001 - whatever stands behind may fail in any way, and quote the query when it does
        _LOG.error("a query failed: %s", error_location(error))
        raise HTTPException(500, "the query failed inside the service; its log says where") from None


def _search_out(answer: Answer, k: int, *, total_ms: float) -> SearchOut:
    return SearchOut(
        hits=[HitOut(**{**asdict(hit), "thumbnail": f"thumbnails/{hit.thumbnail}"}) for hit in answer.hits],
        k=k,
        gallery=answer.gallery,
        truncated=answer.truncated,
        missing_shares=list(answer.missing),
        batch=answer.batch,
        latency_ms=LatencyOut(total=round(total_ms, 2), encode=round(answer.encode_ms, 2), search=round(answer.search_ms, 2)),
    )


def _cameras(camera_ids: list[int] | None) -> tuple[int, ...] | None:
    return None if camera_ids is None else tuple(sorted(set(camera_ids)))


async def _bad_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BadRequestError)
    return JSONResponse({"detail": str(error)}, status_code=error.status)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": sentence(error.errors())}, status_code=422)
