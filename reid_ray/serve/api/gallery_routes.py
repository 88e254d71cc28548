"""Routes that read the gallery without a question: browsing, counts, items, pictures, what there is."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response

from reid_ray.serve.access.audit.noted import noted
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.route_table import RouteRule
from reid_ray.serve.api.answers import JSONAnswer, facet_answer, item_answer
from reid_ray.serve.api.problems import problems
from reid_ray.serve.api.query_parsing import checked_k, json_bytes
from reid_ray.serve.api.schema import BrowseIn, BrowseOut, FacetsIn, FacetsOut, InfoOut, ItemOut
from reid_ray.serve.api.upkeep.change_answers import caller_of
from reid_ray.serve.config import ServeConfig
from reid_ray.serve.operations.search_operations import SearchOperations
from reid_ray.versions import numbered

_ID = Annotated[str, Query(alias="id", max_length=4096, description="an item's id, as a hit has it")]
_PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "the small picture"}}


def gallery_rules(limits: ServeConfig) -> dict[tuple[str, str], RouteRule]:
    """Who may ask these routes, and with how large a body."""
    words = json_bytes(limits)
    return {
        ("GET", "/v1/info"): RouteRule(AccessRole.SEARCH),
        ("POST", "/v1/browse"): RouteRule(AccessRole.SEARCH, words, searches=True, verb="browse"),
        ("POST", "/v1/facets"): RouteRule(AccessRole.SEARCH, words),
        ("GET", "/v1/items"): RouteRule(AccessRole.SEARCH, verb="item"),
        ("GET", "/v1/thumbnails"): RouteRule(AccessRole.SEARCH),
    }


def gallery_routes(operations: SearchOperations) -> APIRouter:
    """The routes that read."""
    router = APIRouter(prefix="/v1", tags=["gallery"])

    @router.get("/info", responses={200: {"model": InfoOut}, **problems()}, response_class=JSONAnswer)
    async def info(request: Request) -> JSONAnswer:
        """What the service searches, and its limits."""
        facts = await operations.describe()
        columns = [{"name": name, "type": words} for name, words in facts.pop("columns").items()]
        caller = caller_of(request)
        me = {"name": caller.name, "role": caller.role.word, "login": caller.login}
        limits = operations.limits.model_dump(include={"default_k", "max_k", "max_text_chars", "max_upload_bytes", "max_pixels"})
        return JSONAnswer({**numbered("service"), **facts, "columns": columns, "limits": limits, "me": me})

    @router.post("/browse", responses={200: {"model": BrowseOut}, **problems(409)}, response_class=JSONAnswer)
    async def browse(page: BrowseIn, request: Request) -> JSONAnswer:
        """The gallery page by page, what was added last first."""
        k = checked_k(page.k, operations.limits)
        found = await operations.newest(k + 1, where=page.where, after=page.cursor)
        items = found.items
        if page.cursor is not None and not found.is_known:
            raise HTTPException(409, "cursor: the item that the page before ended with is gone; begin with the first page")
        facts = await operations.describe()
        cursor = items[k - 1].item_id if len(items) > k else None
        noted(request.scope["state"], items=len(items[:k]))
        listed, missing = [item_answer(each) for each in items[:k]], sorted({*found.missing, *facts["missing_shares"]})
        told = {"generation": facts["generation"], "gallery": facts["items"], "missing_shares": missing}
        return JSONAnswer({"items": listed, "cursor": cursor, **told})

    @router.post("/facets", responses={200: {"model": FacetsOut}, **problems()}, response_class=JSONAnswer)
    async def facets(asked: FacetsIn) -> JSONAnswer:
        """How many items that pass have each value of some columns."""
        counts = await operations.facets(asked.columns, asked.where)
        columns = {name: facet_answer(values, asked.limit) for name, values in counts.columns.items()}
        generation = operations.engine.gallery.generation
        return JSONAnswer({"generation": generation, "columns": columns, "missing_shares": list(counts.missing)})

    @router.get("/items", responses={200: {"model": ItemOut}, **problems(404)}, response_class=JSONAnswer)
    async def item(item_id: _ID, request: Request) -> JSONAnswer:
        """What is known of an item."""
        noted(request.scope["state"], ids=[item_id])
        found = await operations.item(item_id)
        if found is None:
            raise HTTPException(404, "id: the gallery holds no such item (any more)")
        return JSONAnswer(item_answer(found))

    @router.get("/thumbnails", responses={**_PICTURE, **problems(404)}, response_class=Response)
    async def thumbnail(item_id: _ID) -> Response:
        """The small picture of an item."""
        data = await operations.thumbnail(item_id)
        if not data:
            raise HTTPException(404, "id: the gallery holds no such item (any more), or no picture of it")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})

    return router
