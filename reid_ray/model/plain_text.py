"""Special-token escaping: every call of a tokenizer goes through here, so that no caption or query injects a model's control tokens.

A text that spells a special token, or mark (<|endoftext|>, <|image_pad|>, [SEP]), would end the text, stand for a picture or open another
turn. Such a mark is broken by a space behind its first character (< |endoftext|>), which every tokenizer reads as ordinary characters; all
other text is left as it is. Also counts how long a text was before it was truncated. Knows tokenizers; not models or prompts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

_LOOKS_SPECIAL = re.compile(r"<.+>|\[.+\]", re.DOTALL)  # which entries that were added to a vocabulary are special


def plain_text(tokenizer: Any, text: str, *, marks: Iterable[str] = ()) -> str:
    """The text with every special token in it escaped; itself, in almost all cases.

    Args:
        tokenizer: of transformers or vLLM.
        text: what a person or a model wrote.
        marks: further special tokens, such as the word that a processor replaces by a picture's tokens.
    """
    return _escaped(text, _special_tokens_of(tokenizer, frozenset(marks)))


def plain_texts(tokenizer: Any, texts: Iterable[str], *, marks: Iterable[str] = ()) -> list[str]:
    """plain_text of each text."""
    known = _special_tokens_of(tokenizer, frozenset(marks))
    return [_escaped(text, known) for text in texts]


def plain_tokens(tokenizer: Any, texts: Sequence[str], **options: Any) -> Any:
    """Tokenise texts with special tokens escaped: none is in the result but those that the tokenizer adds itself.

    Args:
        tokenizer: of transformers.
        texts: N of them, as they were written.
        options: of the tokenizer's call.

    Returns:
        transformers' BatchEncoding.
    """
    return tokenizer(plain_texts(tokenizer, texts), **options)


def chat_tokens(tokenizer: Any, text: str, **options: Any) -> Any:
    """Tokenise a rendered chat, whose special tokens count; texts in it must have gone through plain_text before. A BatchEncoding."""
    return tokenizer(text, **options)


def full_lengths(encoded: Any) -> np.ndarray:
    """How many tokens each of N texts has, special ones included, before plain_tokens truncated it (truncation=True): int64 [N].

    Args:
        encoded: of a fast tokenizer, padded, with its attention_mask.
    """
    lengths_N = np.asarray(encoded["attention_mask"]).sum(axis=1).astype(np.int64)
    for row, encoding in enumerate(encoded.encodings):
        for rest in encoding.overflowing:
            lengths_N[row] += int(np.sum(np.array(rest.attention_mask) > np.array(rest.special_tokens_mask)))  # a pad is special too
    return lengths_N


@dataclass
class TruncationCounts:
    """Truncation statistics: how many texts were longer than the model's context, of how many, and the tokens of the longest."""

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


class _SpecialTokens:
    """The special tokens of a tokenizer as patterns."""

    def __init__(self, marks: Iterable[str], *, folds_case: bool) -> None:
        spelled = sorted({mark for mark in marks if len(mark.strip()) > 1}, key=lambda mark: (-len(mark), mark))
        first = {mark[0] for mark in spelled}
        # Characters that some normaliser writes as the first one of a mark: a text without any of them holds no mark.
        first |= {letter for letter in map(chr, _COMPATIBLE) if unicodedata.normalize("NFKC", letter)[:1] in first}
        self.first = re.compile(f"[{re.escape(''.join(sorted(first)))}]", re.IGNORECASE) if spelled else None
        self.any = re.compile("|".join(map(re.escape, spelled)), re.IGNORECASE if folds_case else 0)


_COMPATIBLE = (*range(0xFE10, 0xFE70), *range(0xFF00, 0xFFF0))  # presentation forms, full and half width
_KNOWN: WeakKeyDictionary[Any, dict[tuple[int, frozenset[str]], _SpecialTokens]] = WeakKeyDictionary()


def _special_tokens_of(tokenizer: Any, further: frozenset[str]) -> _SpecialTokens:
    known = _KNOWN.setdefault(tokenizer, {})
    key = (len(tokenizer), further)  # entries may be added later
    if key not in known:
        added = {mark for mark in tokenizer.get_added_vocab() if _LOOKS_SPECIAL.fullmatch(mark)}
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("A MAN IN RED", "a man in red")]
        known[key] = _SpecialTokens({*tokenizer.all_special_tokens, *added, *further}, folds_case=ids[0] == ids[1])
    return known[key]


def _escaped(text: str, marks: _SpecialTokens) -> str:
    if marks.first is None or not marks.first.search(text):
        return text
    while (escaped := marks.any.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)) != text:
        text = escaped
    if not text.isascii() and marks.any.search(unicodedata.normalize("NFKC", text)):
        return marks.first.sub(lambda letter: f"{letter[0]} ", text)
    return text
