"""Post-processing of model output: an answer -> a caption, or a reason why it is none.

Pure text; knows what chat models add around an answer (lead-ins, quotes, notes). What is no caption is validation.py's.
"""

from __future__ import annotations

import re
import unicodedata

from reid_ray.caption.filters.config import ValidationConfig
from reid_ray.caption.filters.validation import check_caption

_LEAD_IN = re.compile(
    r"^\s*(?:(?:sure|certainly|of course|okay|absolutely)(?:\s+thing)?\s*[:.!,]\s*)?"
    r"(?:(?:here(?:'s|’s| is| are)|the following is)\b[^\n:]{0,100}:\s*)?"
    r"(?:(?:\*\*)?(?:(?:rewritten|new|revised|image|rephrased)\s+)*(?:caption|description|version|answer|assistant|rewrite)\s*:\s*(?:\*\*)?\s*)?",
    re.IGNORECASE,
)
_QUOTES = "\"'“”‘’`*"


class BadAnswerError(Exception):
    """An answer that is no caption. `reason` is a short code to count by, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def clean_answer(text: str, *, finished: bool, limits: ValidationConfig, prompt: str | None = None) -> str:
    """The caption in `text`: one paragraph on one line, without lead-in, quotes or an unfinished last sentence.

    Args:
        text: what the model said.
        finished: False if it was cut at the token limit.
        limits: what counts as a caption.
        prompt: what the model was asked; copying it is no caption.

    Raises:
        BadAnswerError: reason is unfinished or a code of validation.RULES.
    """
    said = unicodedata.normalize("NFC", text).strip()
    said = _LEAD_IN.sub("", said, count=1).strip()
    paragraph, _, rest = said.partition("\n\n")
    if not paragraph.isprintable():  # most are; looking at every character takes longer than all other checks
        paragraph = "".join(" " if unicodedata.category(c).startswith("C") else c for c in paragraph)
    caption = " ".join(paragraph.split())
    if len(caption) > 1 and caption[0] in _QUOTES:
        caption = caption.strip(_QUOTES).strip()
    failure = check_caption(caption, limits, prompt=prompt)
    if failure is not None:
        raise BadAnswerError(failure.code, failure.detail)
    if finished or rest:
        return caption
    return _whole_sentences(caption, limits)


def _whole_sentences(caption: str, limits: ValidationConfig) -> str:
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", caption)]
    if not ends or check_caption(caption[: ends[-1]], limits) is not None:
        raise BadAnswerError("unfinished", f"cut at the token limit within its first sentence, after {len(caption.split())} words")
    return caption[: ends[-1]]
