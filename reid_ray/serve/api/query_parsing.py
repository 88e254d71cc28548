"""From what was asked over HTTP to a query: configured limits, base64, pictures decoded beside the searches."""

from __future__ import annotations

import base64
import binascii
from collections.abc import MutableMapping, Sequence
from typing import Any

from reid_ray.retrieval.query import Clue, Query
from reid_ray.serve.access.audit.noted import noted
from reid_ray.serve.api.problems import BadRequestError
from reid_ray.serve.api.schema import ClueIn, ExplainIn, Question
from reid_ray.serve.config import ServeConfig
from reid_ray.serve.operations.search_operations import SearchOperations

_FORM_BYTES = 64 << 10  # field names, boundaries, JSON keys


def json_bytes(limits: ServeConfig) -> int:
    """The largest body of a question in words."""
    return limits.max_text_chars * 12 + _FORM_BYTES  # JSON may write a character as two \uXXXX


def pictures_bytes(limits: ServeConfig, *, count: int = 1, base64: bool = False) -> int:
    """The largest body of a question with so many pictures, as they are or as base64 in JSON."""
    return count * limits.max_upload_bytes * (4 if base64 else 3) // 3 + json_bytes(limits)


async def query_of(
    question: Question, operations: SearchOperations, pictures: Sequence[Clue] = (), *, state: MutableMapping[str, Any]
) -> Query:
    """The query of a question, with further clues that came as uploads; `state` is the request's, for the audit log.

    Raises:
        BadRequestError: a limit is passed, or nothing is asked for.
        RefusedError: a picture cannot be decoded.
    """
    limits = operations.limits
    k = checked_k(question.k, limits)
    asked = given_clues(question)
    if not asked and not pictures:
        raise BadRequestError("clues: nothing is asked for; give a text, a picture or an item")
    return Query(
        clues=(*await clues_of(asked, operations, state=state), *pictures),
        k=k,
        where=question.where,
        without=tuple(question.without),
        threshold=question.threshold,
        one_per=question.one_per,
        cursor=question.cursor,
        rerank=None if question.rerank is None else checked_k(question.rerank, limits, name="rerank"),
        exact=question.exact,
    )


def given_clues(question: Question | ExplainIn) -> list[ClueIn]:
    """The clues of a question; its text is one."""
    return [ClueIn(text=question.text)] if question.text is not None else question.clues


async def clues_of(clues: Sequence[ClueIn], operations: SearchOperations, *, state: MutableMapping[str, Any]) -> list[Clue]:
    """Clues as a search takes them, pictures decoded.

    Raises:
        BadRequestError, RefusedError: as query_of.
    """
    return [await _clue_of(clue, operations, state) for clue in clues]


async def picture_clue(data: bytes, operations: SearchOperations, *, weight: float = 1.0) -> Clue:
    """A clue of an encoded picture.

    Raises:
        BadRequestError: it is empty or too large.
        RefusedError: it cannot be decoded.
    """
    if not data:
        raise BadRequestError("image: the upload has 0 bytes; send an image file")
    if len(data) > operations.limits.max_upload_bytes:
        raise BadRequestError(f"image: {len(data)} bytes; the largest allowed is {operations.limits.max_upload_bytes}", status=413)
    return Clue(picture=await operations.picture(data), weight=weight)


def checked_k(k: int | None, limits: ServeConfig, *, name: str = "k") -> int:
    """The number of hits to look for.

    Raises:
        BadRequestError: more than the service gives.
    """
    if k is not None and k > limits.max_k:
        raise BadRequestError(f"{name}: {k} hits are asked for; the most allowed is {limits.max_k}")
    return limits.default_k if k is None else k


async def _clue_of(clue: ClueIn, operations: SearchOperations, state: MutableMapping[str, Any]) -> Clue:
    if clue.text is not None:
        noted(state, sought=[clue.text])
        return Clue(text=_checked_text(clue.text, operations.limits), weight=clue.weight)
    if clue.image is not None:
        picture = _decoded_base64(clue.image)
        noted(state, sought=[picture])
        return await picture_clue(picture, operations, weight=clue.weight)
    noted(state, ids=[clue.item or ""])
    return Clue(item_id=clue.item, weight=clue.weight)


def _checked_text(text: str, limits: ServeConfig) -> str:
    text = text.strip()
    if not text:
        raise BadRequestError("text: the query is empty; describe the person to look for")
    if len(text) > limits.max_text_chars:
        raise BadRequestError(f"text: the query has {len(text)} characters; the longest allowed is {limits.max_text_chars}")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can smuggle one in, and it would fail the whole batch in the tokenizer
        raise BadRequestError("text: holds half of a surrogate pair, so it is not valid Unicode") from None
    return text


def _decoded_base64(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"image: is not base64 ({error})") from None
