"""A model's answer -> a caption, or a reason why it is none.

Pure text; knows what chat models add around an answer (lead-ins, quotes, notes) and how answers fail.
"""

from __future__ import annotations

import re
import unicodedata

_LEAD_IN = re.compile(
    r"^\s*(?:(?:sure|certainly|of course|okay|absolutely)(?:\s+thing)?\s*[:.!,]\s*)?"
    r"(?:(?:here(?:'s|’s| is| are)|the following is)\b[^\n:]{0,100}:\s*)?"
    r"(?:(?:\*\*)?(?:(?:rewritten|new|revised|image|rephrased)\s+)*(?:caption|description|version|answer|assistant|rewrite)\s*:\s*(?:\*\*)?\s*)?",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) sorry|i apologi[sz]e|as an ai|i can(?:no|')t (?:help|assist|see|describe|provide|identify|view)|"
    r"i(?:'m| am) (?:not able|unable) to|no image (?:was|is|has been))",
    re.IGNORECASE,
)
_QUOTES = "\"'“”‘’`*"


class BadAnswerError(Exception):
    """An answer that is no caption. `reason` is a short code to count by, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def clean_answer(text: str, *, finished: bool, min_words: int) -> str:
    """The caption in `text`: one paragraph on one line, without lead-in, quotes or an unfinished last sentence.

    Args:
        text: what the model said.
        finished: False if it was cut at the token limit.
        min_words: fewer words are no caption.

    Raises:
        BadAnswerError: reason is empty_answer, refused, left_over_template, garbled, unfinished or too_short.
    """
    said = unicodedata.normalize("NFC", text).strip()
    said = _LEAD_IN.sub("", said, count=1).strip()
    paragraph, _, rest = said.partition("\n\n")
    caption = " ".join("".join(" " if unicodedata.category(c).startswith("C") else c for c in paragraph).split())
    if _is_quoted(caption):
        caption = caption.strip(_QUOTES).strip()
    if not caption:
        raise BadAnswerError("empty_answer", "the model said nothing")
    if _REFUSAL.search(caption):
        raise BadAnswerError("refused", caption[:120])
    # A copied slot or a special token: the captions' authors take either for a failed one.
    if "<" in caption or re.search(r"description\s*\]|\[[^\]]*/", caption):
        raise BadAnswerError("left_over_template", caption[:120])
    if "\ufffd" in caption or not any(c.isalpha() for c in caption):
        raise BadAnswerError("garbled", caption[:120])
    if not finished and not rest:
        caption = _whole_sentences(caption)
    if len(caption.split()) < min_words:
        raise BadAnswerError("too_short", f"{len(caption.split())} words: {caption[:120]}")
    return caption


def _is_quoted(caption: str) -> bool:
    """Whether quotes stand around the whole: at both ends, or an opening one that nothing closes."""
    return caption[:1] in _QUOTES and (caption[-1:] in _QUOTES or not any(quote in caption[1:] for quote in _QUOTES)) and caption != ""


def _whole_sentences(caption: str) -> str:
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", caption)]
    if not ends:
        raise BadAnswerError("unfinished", f"cut at the token limit within its first sentence: {caption[:120]}")
    return caption[: ends[-1]]
