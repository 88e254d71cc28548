"""An item of a gallery and a question, explained: the clues' vectors, the item's stored vector and its small picture, put together.

Knows the search engine; not HTTP or who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reid_ray.data.images import BadImageError, decode_image
from reid_ray.retrieval.explain.score_explanation import Explanation, explain_score
from reid_ray.retrieval.query import Clue
from reid_ray.retrieval.search import SearchEngine


def explain_item(engine: SearchEngine, clues: Sequence[Clue], item_id: str, *, go_on: Callable[[], None]) -> Explanation | None:
    """Why an item scores as it does; None where the gallery lacks it. Its picture is explained as the gallery keeps it: small.

    Args:
        engine: with the gallery and its encoder.
        clues: what is asked, at least one.
        item_id: the item's.
        go_on: as explain_score calls it.

    Raises:
        DataError: the question has no vector; says why.
    """
    vectors = engine.clue_vectors(clues)
    item_ND, is_there = engine.gallery.vectors_there([item_id])
    if not is_there[0]:
        return None
    data = engine.gallery.thumbnail(item_id)
    try:
        picture = decode_image(data) if data else None
    except BadImageError:
        picture = None  # whoever added the item gave another thing as its picture
    return explain_score(engine.encoder, clues, vectors, item_ND[0], picture, go_on=go_on)
