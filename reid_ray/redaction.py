"""Redaction of secrets in configurations and command lines, and of texts about people in a library's messages.

Pure functions of text; they know no file and no log. A manifest keeps what ran, so it is where a key that was given as a value would
stay for ever. What an exception quotes is taken out by errors.reason_of; here, what it repeats without quotes.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HIDDEN = "***"
# hf_token and serve.token are secrets; max_tokens and eos_token are not, and what they say shapes a result.
_START = r"(?:^|(?<=[^\w-]))"
_TOKEN = rf"{_START}(?:(?:\w+[_-])?(?:hf|hub|api|auth|access|bearer|refresh|session|secret)[_-])?token"
_WORD = rf"{_START}(?:\w*[_-])?(?:secret|password|passwd|passphrase|credentials?)"
_KEY = rf"{_START}(?:\w*[_-])?(?:api|access|secret|private)[_-]?key(?:_id)?"
_SECRET_NAME = re.compile(rf"(?:{_TOKEN}|{_WORD}|{_KEY})$", re.IGNORECASE)
_SECRET_VALUE = re.compile(rf"((?:{_TOKEN}|{_WORD}|{_KEY})['\"]?\s*[=:]\s*)[^\s&,}}]+", re.IGNORECASE)
_USER = re.compile(r"(?<!\w)(\w+://)[^/?#\s@]+@")  # from a word's beginning alone, or a long word takes the square of its length
_RUN = 3  # words in a row that nobody writes by chance


def redacted(value: Any, *, name: str = "") -> Any:
    """Redact a JSON value: values under names such as hf_token or password, and users and passwords in addresses."""
    if isinstance(value, Mapping):
        return {key: redacted(each, name=str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(each, name=name) for each in value]
    if value is not None and not isinstance(value, bool) and _SECRET_NAME.search(name):
        return HIDDEN
    return without_secrets(value) if isinstance(value, str) else value


def without_secrets(text: str) -> str:
    """A line, such as a command, without values of secret names and without users and passwords in addresses."""
    return _USER.sub(rf"\1{HIDDEN}@", _SECRET_VALUE.sub(rf"\1{HIDDEN}", text))


def without_texts(said: str, private: Iterable[str]) -> str:
    """What a library said, up to where it repeats one of `private`, whole or in part: three words in a row, or all of a shorter one."""
    end = len(said)
    for text in private:
        words = text.split()
        size = min(_RUN, len(words))
        runs = (" ".join(words[at : at + size]) for at in range(len(words) - size + 1) if size)
        end = min([end, *(at for run in runs if (at := said.find(run)) >= 0)])
    return said if end == len(said) else f"{said[:end].rstrip()} ..."


def error_location(error: BaseException) -> str:
    """The kind of an exception and the line of code that raised it; nothing of its message."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__ + (f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "")
