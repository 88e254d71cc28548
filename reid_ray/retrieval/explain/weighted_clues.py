"""What is asked, as a sum of weighted clues, and the words of its texts: the vector that is searched for, and that without a word.

Knows vectors and texts; not encoders, pictures or galleries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid_ray.errors import DataError

# Scripts that write without blanks between words: each character stands for itself. The rest of a word may hold ' and - inside.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f\u1000-\u109f\u1780-\u17ff\U00020000-\U0003fffd"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+(?:['’\-](?:(?![{_UNSPACED}])\w)+)*")


@dataclass(frozen=True)
class AskedText:
    """A text that is looked for; weights are at or above 0 or, for what is not wanted, below."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class AskedVector:
    """A unit vector that is looked for: of a picture, or of an item of the gallery."""

    vector_D: np.ndarray
    weight: float = 1.0


Asked = AskedText | AskedVector


@dataclass(frozen=True)
class PlacedWord:
    """A word and where it stands in its text: characters from `start` to before `end`."""

    word: str
    start: int
    end: int


def words_of(text: str) -> list[PlacedWord]:
    """The words of a text, in order. Marks and blanks belong to none; Chinese, Japanese, Thai, Burmese and Khmer count by character."""
    return [PlacedWord(found.group(), found.start(), found.end()) for found in _WORD.finditer(text)]


def text_without(text: str, word: PlacedWord) -> str:
    """The text with one word left out, and one blank where two would meet; empty if no word is left."""
    before, after = text[: word.start].rstrip(), text[word.end :].lstrip()
    gap = " " if len(before) + len(after) + (word.end - word.start) < len(text) else ""
    left = f"{before}{gap}{after}".strip()
    return left if words_of(left) else ""


def summed_vector(vectors: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """The unit vector of sum(weight x unit vector), float32 [D]: what is searched for.

    Raises:
        DataError: nothing is left of the sum.
    """
    total = np.zeros(vectors[0].shape if len(vectors) else 0, np.float64)
    for vector_D, weight in zip(vectors, weights, strict=True):
        total += weight * np.asarray(vector_D, np.float64)
    length = float(np.linalg.norm(total))
    if not length > 1e-6:
        raise DataError("the clues cancel out, so nothing is left to search for; give one more weight, or leave one out")
    return (total / length).astype(np.float32)
