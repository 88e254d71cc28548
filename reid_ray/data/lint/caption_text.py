"""Caption lint rules: code instead of words, a template's slots, another script, no text at all.

Pure. The rules look for what was found in published caption files and in MLLM output; a sentence about a person passes all of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_MARKUP = re.compile(r"</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>|&[a-z]+;|```")
_PROGRAM = re.compile(
    r"\bdef \w+\(|\bfunction\s*\w*\(|\b(?:var|const|let)\s+\w+\s*=|^\s*class \w+\s*[:({]|\bimport \w+(?:\.\w+)*\s*(?:;|$)"
    r"|\breturn [^.,]*;|\b(?:print|console\.log)\(|\b(?:public|private|static) (?:static|void|class|int)\b|\blambda \w+:"
    r"|\w+\([^)\s]*\)\s*[;{:]|[{}]\s*$|=>|==|!=|&&|\|\||\+=|#include|\bSELECT\b.+\bFROM\b|https?://|\{\s*[\"']\w+[\"']\s*:|\\[nrtx]\w?"
)
_SLOT = re.compile(r"(?:description|person/woman/man)\]|\[[a-z /]+\]|<")
_SYMBOLS = frozenset("{}[]<>=;|\\_#$@^~`*")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_VOWELS = frozenset("aeiouyAEIOUY")

RULES = {
    "caption_code": "captions that are program code or markup",
    "caption_template": "captions with an unfilled slot of a template",
    "caption_script": "captions in another script",
    "caption_no_text": "captions that are no text: symbols, gibberish, one thing repeated",
    "caption_short": "captions of fewer than three words",
}
# What CLIP's tokenizer splits a text into before anything else: endings, words, digits one by one, runs of other marks. Scripts without
# spaces are counted by the character: its vocabulary has hardly a word of theirs.
_NO_SPACES = r"\u2e80-\ua4cf\uac00-\ud7ff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"'(?:s|t|re|ve|m|ll|d)|[{_NO_SPACES}]|[^\W\d_{_NO_SPACES}]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


def least_tokens(text: str) -> int:
    """At least so many tokens CLIP makes of a text, both marks included."""
    return 2 + len(_PIECE.findall(text))


def caption_fault(text: str, script: str) -> str | None:
    """The rule that a caption breaks, the gravest one, or None. `script` begins its letters' Unicode names, as LATIN."""
    visible = [character for character in text if not character.isspace()]
    return _form_fault(text, visible) or _letter_fault(visible, script) or _word_fault(_WORD.findall(text), script)


def _form_fault(text: str, visible: list[str]) -> str | None:
    if _MARKUP.search(text) or _PROGRAM.search(text):
        return "caption_code"
    if _SLOT.search(text):
        return "caption_template"
    symbols = sum(character in _SYMBOLS for character in visible)
    return "caption_code" if symbols >= 4 and symbols > 0.05 * len(visible) else None


def _letter_fault(visible: list[str], script: str) -> str | None:
    letters = [character for character in visible if character.isalpha()]
    broken = any(character == "\ufffd" or unicodedata.category(character) in ("Cc", "Co", "Cs") for character in visible)
    if broken or len(letters) < 0.6 * len(visible):
        return "caption_no_text"
    foreign = sum(not _in_script(letter, script) for letter in letters)
    return "caption_script" if foreign >= 2 and foreign > 0.1 * len(letters) else None


def _word_fault(words: list[str], script: str) -> str | None:
    if script == "LATIN" and words:
        gibberish = sum(len(word) > 2 and not _VOWELS & set(_plain(word)) for word in words) + sum(len(word) > 25 for word in words)
        if gibberish > 0.3 * len(words):
            return "caption_no_text"
    if len(words) >= 6 and Counter(word.lower() for word in words).most_common(1)[0][1] > 0.5 * len(words):
        return "caption_no_text"
    # Scripts without spaces make one word of a sentence.
    if len(words) < 3 and (script == "LATIN" or sum(map(len, words)) < 8):
        return "caption_short"
    return None


def _plain(word: str) -> str:
    return unicodedata.normalize("NFD", word)


@lru_cache(maxsize=4096)
def _in_script(letter: str, script: str) -> bool:
    return unicodedata.name(letter, "").startswith(script)


def normalised(text: str) -> str:
    """A caption without what does not make it another one: case, spaces, punctuation at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?\"'")
