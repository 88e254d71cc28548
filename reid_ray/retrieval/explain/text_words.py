"""The words of a text, in any script, with their places, and the text without one of them. Knows characters alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Scripts that write without blanks between words: each character stands for itself. The rest of a word may hold ' and - inside.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f\u1000-\u109f\u1780-\u17ff\U00020000-\U0003fffd"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+(?:['’\-](?:(?![{_UNSPACED}])\w)+)*")


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
    """The text with one word left out, and one blank where two would meet, or two words become one; empty if no word is left."""
    before, after = text[: word.start].rstrip(), text[word.end :].lstrip()
    apart = [*_words(before), *_words(after)]
    gap = " " if len(before) + len(after) + (word.end - word.start) < len(text) or _words(before + after) != apart else ""
    return f"{before}{gap}{after}".strip() if apart else ""


def _words(text: str) -> list[str]:
    return [each.word for each in words_of(text)]
