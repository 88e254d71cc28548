"""Answers of searches as JSON. Written without a second validation: schema.py says their shape, and tests compare."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fastapi.responses import JSONResponse
from pydantic_core import to_json

from reid_ray.gallery.nearest.browsing import Listed
from reid_ray.retrieval.explain.score_explanation import Explanation
from reid_ray.retrieval.query import Answer
from reid_ray.serve.api.schema import ClueIn

_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch  # most ids; quote takes ten times as long to find that out


class JSONAnswer(JSONResponse):
    """A JSON body of what a gallery holds: times in ISO 8601, numbers that are none as null."""

    def render(self, content: Any) -> bytes:
        """The body."""
        try:
            return to_json(content, inf_nan_mode="null", fallback=str)
        except ValueError:  # a sentence may quote half of a surrogate pair, and another's gallery hold bytes: neither is text
            return to_json(_whole(content), inf_nan_mode="null", fallback=str)


def thumbnail_path(item_id: str) -> str:
    """Where an item's small picture is asked for, relative to the service; an id may hold anything, so it is no part of the path."""
    return f"v1/thumbnails?id={item_id if _NEEDS_NO_QUOTES(item_id) else quote(item_id, safe='', errors='replace')}"


def search_answer(answer: Answer, k: int, *, total_ms: float) -> dict[str, Any]:
    """schema.SearchOut of an answer."""
    return {
        "hits": [
            {
                "rank": rank,
                "score": hit.score,
                "generation": hit.generation,
                "item_id": hit.item_id,
                "item": hit.item,
                "thumbnail": thumbnail_path(hit.item_id),
            }
            for rank, hit in enumerate(answer.hits, 1)
        ],
        "k": k,
        "cursor": answer.cursor,
        "generation": answer.generation,
        "gallery": answer.gallery,
        "truncated": answer.truncated,
        "missing_shares": list(answer.missing),
        "batch": answer.batch,
        "latency_ms": {"total": round(total_ms, 2), "encode": round(answer.encode_ms, 2), "search": round(answer.search_ms, 2)},
    }


def explanation_answer(found: Explanation, clues: Sequence[ClueIn]) -> dict[str, Any]:
    """schema.ExplainOut of an explanation; places of words are those in the texts as they were sent."""
    blanks = [len(clue.text) - len(clue.text.lstrip()) if clue.text else 0 for clue in clues]
    patches = found.patches
    return {
        "score": found.score,
        "words": [
            {
                "clue": each.clue,
                "word": each.word.word,
                "start": each.word.start + blanks[each.clue],
                "end": each.word.end + blanks[each.clue],
                "effect": each.effect,
            }
            for each in found.words
        ],
        "words_left_out": found.words_left_out,
        "picture_score": found.picture_score,
        "patches": None if patches is None else {"rows": patches.rows, "columns": patches.columns, "effects": patches.effects},
    }


def item_answer(listed: Listed) -> dict[str, Any]:
    """schema.ItemOut of an item."""
    return {
        "item_id": listed.item_id,
        "generation": listed.generation,
        "item": listed.item,
        "thumbnail": thumbnail_path(listed.item_id),
    }


def facet_answer(counts: Mapping[Any, int], limit: int) -> dict[str, Any]:
    """schema.FacetOut of the counts of a column; under None is what was not counted one by one."""
    ordered = sorted(((value, count) for value, count in counts.items() if value is not None), key=lambda each: (-each[1], str(each[0])))
    values = [{"value": value, "count": count} for value, count in ordered[:limit]]
    return {"values": values, "others": sum(count for _, count in ordered[limit:]) + counts.get(None, 0)}


def _whole(value: Any) -> Any:
    """The same with a question mark for each half of a surrogate pair, and null for bytes."""
    if isinstance(value, bytes):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_whole(name): _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value
