"""Why an item scores as it does: each word of the question left out in turn, and each place of the item's picture painted over.

Effects are cosines: what the score loses without a word, or a place. The score is that of the vector that the gallery keeps. The picture is
the small one that the gallery keeps, whose own score differs a little; its map is relative to that. Costs at most MAX_WORDS texts and, for
a picture twice as high as wide, 54 pictures; the same inputs give the same explanation. Knows an encoder's interface; not galleries, HTTP
or who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from reid_ray.errors import DataError
from reid_ray.model.encoder import Encoder
from reid_ray.retrieval.clue_sum import summed_vector
from reid_ray.retrieval.explain.picture_occlusion import HeatMap, occlusion_map
from reid_ray.retrieval.explain.text_words import PlacedWord, text_without, words_of
from reid_ray.retrieval.query import Clue

MAX_WORDS: Final = 128
_AT_ONCE: Final = 32


@dataclass(frozen=True)
class WordEffect:
    """A word of the clue with number `clue`, from 0, and what the score loses without it."""

    clue: int
    word: PlacedWord
    effect: float


@dataclass(frozen=True)
class Explanation:
    """What carries a score.

    score: the cosine of the question and the item's stored vector.
    words: of all texts in their order; MAX_WORDS at most.
    words_left_out: how many more there are.
    picture_score: the cosine of the question and the small picture; None where there is none.
    patches: what that loses without each place; None where there is no picture.
    """

    score: float
    words: tuple[WordEffect, ...]
    words_left_out: int
    picture_score: float | None
    patches: HeatMap | None


def explain_score(
    encoder: Encoder,
    clues: Sequence[Clue],
    vectors: Sequence[np.ndarray],
    item_D: np.ndarray,
    picture: Image.Image | None,
    *,
    go_on: Callable[[], None] = lambda: None,
) -> Explanation:
    """Explain the score of a question and an item.

    Args:
        encoder: that of the gallery.
        clues: the question's, at least one.
        vectors: their unit vectors [D].
        item_D: the item's unit vector.
        picture: the item's small picture, RGB; None: only words are explained.
        go_on: called between batches of at most 32 texts or pictures; what it raises ends the explanation.

    Raises:
        DataError: the clues cancel out, or the encoder gives NaN or infinity.
    """
    item = item_D.astype(np.float64)
    weights = [clue.weight for clue in clues]
    question_D = summed_vector(vectors, weights).astype(np.float64)
    score = float(question_D @ item)
    words = [(number, word) for number, clue in enumerate(clues) for word in words_of(clue.text or "")]
    effects = []
    for at in range(0, min(len(words), MAX_WORDS), _AT_ONCE):
        go_on()
        part = words[at : min(at + _AT_ONCE, MAX_WORDS)]
        for (number, word), without in zip(part, _vectors_without(encoder, clues, part), strict=True):
            effects.append(WordEffect(number, word, score - _score_with(vectors, weights, number, without, item)))

    def scores(pictures: Sequence[Image.Image]) -> np.ndarray:
        go_on()
        return _finite(encoder.encode_images(pictures)).astype(np.float64) @ question_D

    picture_score, patches = (None, None) if picture is None else occlusion_map(picture, scores)
    return Explanation(score, tuple(effects), max(0, len(words) - MAX_WORDS), picture_score, patches)


def _vectors_without(encoder: Encoder, clues: Sequence[Clue], words: Sequence[tuple[int, PlacedWord]]) -> list[np.ndarray | None]:
    """For each word the vector of its clue without it; None where no word is left."""
    left = [text_without(clues[number].text or "", word) for number, word in words]
    there = [text for text in left if text]
    encoded = iter(_finite(encoder.encode_texts(there)) if there else [])
    return [next(encoded) if text else None for text in left]


def _score_with(vectors: Sequence[np.ndarray], weights: Sequence[float], number: int, other: np.ndarray | None, item: np.ndarray) -> float:
    """The score where clue `number` has another vector, or is left out; 0, as for what has nothing in common, where nothing is left."""
    changed = [other if at == number else vector for at, vector in enumerate(vectors)]
    kept = [(vector, weight) for vector, weight in zip(changed, weights, strict=True) if vector is not None]
    if not kept:
        return 0.0
    try:
        return float(summed_vector([vector for vector, _ in kept], [weight for _, weight in kept]).astype(np.float64) @ item)
    except DataError:
        return 0.0


def _finite(vector_ND: np.ndarray) -> np.ndarray:
    if not np.isfinite(vector_ND).all():
        raise DataError("the encoder gives NaN or infinity for this question or picture, so nothing can be explained; ask otherwise")
    return vector_ND
