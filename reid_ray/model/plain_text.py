"""Text is text: every call of a tokenizer goes through here, so that no caption or query is taken for a model's control marks.

A text that spells a mark (<|endoftext|>, <|image_pad|>, [SEP]) would end the text, stand for a picture or open another turn. Such a mark is
broken by a space behind its first character (< |endoftext|>), which every tokenizer reads as ordinary characters; all other text is left as
it is. Also counts how long a text was before it was cut. Knows tokenizers; not models or prompts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

_SHAPE = re.compile(r"<.+>|\[.+\]", re.DOTALL)  # of a mark, among entries that were added to a vocabulary


def plain_text(tokenizer: Any, text: str, *, marks: Iterable[str] = ()) -> str:
    """The text without a mark of the tokenizer in it; itself, in almost all cases.

    Args:
        tokenizer: of transformers or vLLM.
        text: what a person or a model wrote.
        marks: further ones, such as the word that a processor replaces by a picture's tokens.
    """
    return _broken(text, _marks_of(tokenizer, frozenset(marks)))


def plain_texts(tokenizer: Any, texts: Iterable[str], *, marks: Iterable[str] = ()) -> list[str]:
    """plain_text of each text."""
    known = _marks_of(tokenizer, frozenset(marks))
    return [_broken(text, known) for text in texts]


def plain_tokens(tokenizer: Any, texts: Sequence[str], **options: Any) -> Any:
    """The tokens of texts, of which none is a mark but those that the tokenizer adds itself.

    Args:
        tokenizer: of transformers.
        texts: N of them, as they were written.
        options: of the tokenizer's call.

    Returns:
        transformers' BatchEncoding.
    """
    return tokenizer(plain_texts(tokenizer, texts), **options)


def marked_tokens(tokenizer: Any, text: str, **options: Any) -> Any:
    """The tokens of a rendered chat, whose marks are marks; what people wrote in it went through plain_text before. A BatchEncoding."""
    return tokenizer(text, **options)


def full_lengths(encoded: Any) -> np.ndarray:
    """How many tokens each of N texts has, marks included, before plain_tokens cut it (truncation=True): int64 [N].

    Args:
        encoded: of a fast tokenizer, padded, with its attention_mask.
    """
    lengths_N = np.asarray(encoded["attention_mask"]).sum(axis=1).astype(np.int64)
    for row, encoding in enumerate(encoded.encodings):
        for rest in encoding.overflowing:
            lengths_N[row] += int(np.sum(np.array(rest.attention_mask) > np.array(rest.special_tokens_mask)))  # a pad is special too
    return lengths_N


@dataclass
class CutTexts:
    """How many of the texts that a model read it could not read to their end, and the tokens of the longest."""

    truncated: int = 0
    of: int = 0
    longest: int = 0

    def add(self, tokens_N: np.ndarray, context: int) -> None:
        """Count N texts by their tokens; a model reads `context` of them."""
        self.truncated += int((tokens_N > context).sum())
        self.of += len(tokens_N)
        self.longest = max(self.longest, int(tokens_N.max(initial=0)))

    def facts(self) -> dict[str, int]:
        """For a manifest."""
        return asdict(self)

    def sentence(self) -> str:
        """For the end of a job's line; empty if no text was cut."""
        return f"; {self.truncated} of {self.of} texts cut, the longest has {self.longest} tokens" if self.truncated else ""


class _Marks:
    """The marks of a tokenizer as patterns."""

    def __init__(self, marks: Iterable[str], *, folds_case: bool) -> None:
        spelled = sorted({mark for mark in marks if len(mark.strip()) > 1}, key=lambda mark: (-len(mark), mark))
        first = {mark[0] for mark in spelled}
        # Characters that some normaliser writes as the first one of a mark: a text without any of them holds no mark.
        first |= {letter for letter in map(chr, _COMPATIBLE) if unicodedata.normalize("NFKC", letter)[:1] in first}
        self.first = re.compile(f"[{re.escape(''.join(sorted(first)))}]", re.IGNORECASE) if spelled else None
        self.any = re.compile("|".join(map(re.escape, spelled)), re.IGNORECASE if folds_case else 0)


_COMPATIBLE = (*range(0xFE10, 0xFE70), *range(0xFF00, 0xFFF0))  # presentation forms, full and half width
_KNOWN: WeakKeyDictionary[Any, dict[tuple[int, frozenset[str]], _Marks]] = WeakKeyDictionary()


def _marks_of(tokenizer: Any, further: frozenset[str]) -> _Marks:
    known = _KNOWN.setdefault(tokenizer, {})
    key = (len(tokenizer), further)  # entries may be added later
    if key not in known:
        added = {mark for mark in tokenizer.get_added_vocab() if _SHAPE.fullmatch(mark)}
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("A MAN IN RED", "a man in red")]
        known[key] = _Marks({*tokenizer.all_special_tokens, *added, *further}, folds_case=ids[0] == ids[1])
    return known[key]


def _broken(text: str, marks: _Marks) -> str:
    if marks.first is None or not marks.first.search(text):
        return text
    while (broken := marks.any.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)) != text:
        text = broken
    if not text.isascii() and marks.any.search(unicodedata.normalize("NFKC", text)):
        return marks.first.sub(lambda letter: f"{letter[0]} ", text)
    return text
