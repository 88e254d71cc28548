"""Routes that search: one question, uploads, a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from pydantic import ValidationError

from reid_ray.retrieval.query import Clue
from reid_ray.serve.access.audit.noted import noted
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.route_table import RouteRule
from reid_ray.serve.api.answers import JSONAnswer, explanation_answer, search_answer
from reid_ray.serve.api.problems import BadRequestError, problems, sentence, sentence_of
from reid_ray.serve.api.query_parsing import clues_of, given_clues, picture_clue, pictures_bytes, query_of
from reid_ray.serve.api.schema import BatchIn, BatchOut, ExplainIn, ExplainOut, Question, SearchOut
from reid_ray.serve.client_presence import gone_of
from reid_ray.serve.config import ServeConfig
from reid_ray.serve.operations.search_operations import (
    IncompleteError,
    LateError,
    OverloadedError,
    QueryFailedError,
    RefusedError,
    SearchOperations,
)

SEARCH_PATH = "/v1/search"
_MOST_UPLOADS = 8
_REFUSALS = (BadRequestError, RefusedError, OverloadedError, IncompleteError, LateError, QueryFailedError)


def search_rules(limits: ServeConfig) -> dict[tuple[str, str], RouteRule]:
    """Who may ask these routes, and with how large a body."""
    encoded, uploads = pictures_bytes(limits, base64=True), pictures_bytes(limits, count=_MOST_UPLOADS)
    return {
        ("POST", SEARCH_PATH): RouteRule(AccessRole.SEARCH, encoded, searches=True, verb="search"),
        ("POST", "/v1/search/upload"): RouteRule(AccessRole.SEARCH, uploads, searches=True, verb="search"),
        ("POST", "/v1/search/batch"): RouteRule(AccessRole.SEARCH, encoded, searches=True, verb="search.batch"),
        ("POST", "/v1/explain"): RouteRule(AccessRole.SEARCH, encoded, searches=True, verb="explain"),
    }


async def answered(
    operations: SearchOperations, state: MutableMapping[str, Any], question: Question, pictures: Sequence[Clue] = ()
) -> dict[str, Any]:
    """schema.SearchOut of a question; `state` is its request's.

    Raises:
        Exception: any that problems.problem_of knows.
    """
    started = time.perf_counter()
    query = await query_of(question, operations, pictures, state=state)
    found = await operations.search(query, gone_of(state))
    noted(state, items=len(found.hits))
    return search_answer(found, query.k, total_ms=(time.perf_counter() - started) * 1e3)


def search_routes(operations: SearchOperations) -> APIRouter:
    """The routes under /v1/search."""
    router = APIRouter(prefix="/v1", tags=["search"])

    @router.post("/search", responses={200: {"model": SearchOut}, **problems()}, response_class=JSONAnswer)
    async def search(question: Question, request: Request) -> JSONAnswer:
        """Rank the gallery by a description, pictures, items, or several of them."""
        return JSONAnswer(await answered(operations, request.scope["state"], question))

    @router.post("/search/upload", responses={200: {"model": SearchOut}, **problems()}, response_class=JSONAnswer)
    async def search_upload(
        request: Request,
        image: Annotated[list[UploadFile], File(description="JPEG, PNG, WebP, BMP, GIF or TIFF files: a clue each")],
        question: Annotated[str, Form(description="a Question as JSON; may lack clues")] = "{}",
        image_weight: Annotated[float, Form(gt=0, le=100, description="how much each picture counts beside other clues")] = 1.0,
    ) -> JSONAnswer:
        """Rank the gallery by pictures, sent as multipart/form-data, and what the question says beside."""
        if len(image) > _MOST_UPLOADS:
            raise BadRequestError(f"image: {len(image)} pictures; at most {_MOST_UPLOADS} are taken")
        try:
            asked = Question.model_validate_json(question)
        except ValidationError as error:
            raise BadRequestError(f"question: {sentence(error.errors())}") from None
        uploads = [await each.read() for each in image]
        noted(request.scope["state"], sought=uploads)
        pictures = [await picture_clue(each, operations, weight=image_weight) for each in uploads]
        return JSONAnswer(await answered(operations, request.scope["state"], asked, tuple(pictures)))

    @router.post("/search/batch", responses={200: {"model": BatchOut}, **problems()}, response_class=JSONAnswer)
    async def search_batch(batch: BatchIn, request: Request) -> JSONAnswer:
        """Answer several questions, each by itself: one that cannot be answered says why in its place."""

        async def one(question: Question) -> dict[str, Any]:
            try:
                return await answered(operations, request.scope["state"], question)
            except _REFUSALS as error:
                return {"detail": sentence_of(error)}

        return JSONAnswer({"answers": await asyncio.gather(*map(one, batch.questions))})

    @router.post("/explain", responses={200: {"model": ExplainOut}, **problems(404)}, response_class=JSONAnswer)
    async def explain(asked: ExplainIn, request: Request) -> JSONAnswer:
        """Why an item scores as it does: what the score loses without each word, and without each patch of the item's small picture."""
        given, state = given_clues(asked), request.scope["state"]
        noted(state, ids=[asked.item_id])
        found = await operations.explain(await clues_of(given, operations, state=state), asked.item_id, gone_of(state))
        if found is None:
            raise HTTPException(404, "item_id: the gallery holds no such item (any more)")
        return JSONAnswer(explanation_answer(found, given))

    return router
