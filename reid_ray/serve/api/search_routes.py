"""Routes that search: one question, uploads, a batch."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, UploadFile
from pydantic import ValidationError

from reid_ray.retrieval.query import Clue
from reid_ray.serve.api.answers import JSONAnswer, explanation_answer, search_answer
from reid_ray.serve.api.problems import BadRequestError, problems, sentence, sentence_of
from reid_ray.serve.api.query_parsing import clues_of, given_clues, picture_clue, query_of
from reid_ray.serve.api.schema import BatchIn, BatchOut, ExplainIn, ExplainOut, Question, SearchOut
from reid_ray.serve.desk.search_desk import Desk, IncompleteError, LateError, OverloadedError, QueryFailedError, RefusedError

_MOST_UPLOADS = 8
_REFUSALS = (BadRequestError, RefusedError, OverloadedError, IncompleteError, LateError, QueryFailedError)


def search_routes(desk: Desk) -> APIRouter:
    """The routes under /v1/search."""
    router = APIRouter(prefix="/v1", tags=["search"])

    async def answer(question: Question, pictures: tuple[Clue, ...] = ()) -> dict[str, Any]:
        started = time.perf_counter()
        query = await query_of(question, desk, pictures)
        found = await desk.search(query)
        return search_answer(found, query.k, total_ms=(time.perf_counter() - started) * 1e3)

    @router.post("/search", responses={200: {"model": SearchOut}, **problems()}, response_class=JSONAnswer)
    async def search(question: Question) -> JSONAnswer:
        """Rank the gallery by a description, pictures, items, or several of them."""
        return JSONAnswer(await answer(question))

    @router.post("/search/upload", responses={200: {"model": SearchOut}, **problems()}, response_class=JSONAnswer)
    async def search_upload(
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
        pictures = [await picture_clue(await each.read(), desk, weight=image_weight) for each in image]
        return JSONAnswer(await answer(asked, tuple(pictures)))

    @router.post("/search/batch", responses={200: {"model": BatchOut}, **problems()}, response_class=JSONAnswer)
    async def search_batch(batch: BatchIn) -> JSONAnswer:
        """Answer several questions, each by itself: one that cannot be answered says why in its place."""

        async def one(question: Question) -> dict[str, Any]:
            try:
                return await answer(question)
            except _REFUSALS as error:
                return {"detail": sentence_of(error)}

        return JSONAnswer({"answers": await asyncio.gather(*map(one, batch.questions))})

    @router.post("/explain", responses={200: {"model": ExplainOut}, **problems(404)}, response_class=JSONAnswer)
    async def explain(asked: ExplainIn) -> JSONAnswer:
        """Why an item scores as it does: what the score loses without each word, and without each patch of the item's small picture."""
        given = given_clues(asked)
        found = await desk.explain(await clues_of(given, desk), asked.item_id)
        if found is None:
            raise HTTPException(404, "item_id: the gallery holds no such item (any more)")
        return JSONAnswer(explanation_answer(found, given))

    return router
