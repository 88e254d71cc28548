"""Normalisation of ids, splits and paths: one reading of an annotation's values for every format.

Taken where the meaning is sure: "0001" and 1.0 are 1, Train is train, a backslash in a path is a slash, NaN is null. Anything else is
refused in words that name the value, for the reader to count. Knows single values; not files, records or formats.
"""

from __future__ import annotations

import math
import re
from typing import Any

SPLITS = ("train", "val", "test")
_KNOWN_SPLITS = frozenset({*SPLITS, "query", "gallery"})
_SPELLED_BREAK = re.compile(r"(?:(?<=[.!?])|^)(?:\s*[/\\]n)+|(?:[/\\]n)+(?![a-z])|\\n")
_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,40})(?:\.0*)?\s*", re.ASCII)


def whole(value: Any, name: str) -> int | None:
    """A whole number, or None where there is none: null, NaN.

    Raises:
        ValueError: it is something else; names `name` and the value.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if value.is_integer():
            return int(value)
    if isinstance(value, str) and (match := _WHOLE.fullmatch(value)):
        return int(match[1])
    raise ValueError(f"{name} is {shown(value)}, not a whole number")


def split_name(value: Any) -> str | None:
    """A split; the known ones in whatever case they are written, others as they are."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    plain = str(value).strip().lower()
    return plain if plain in _KNOWN_SPLITS else str(value)


def camera_in_name(path: str, name: re.Pattern[str]) -> int | None:
    """The camera in a file's name, the group `camera` of the pattern, or None if it is not named so."""
    match = name.match(path.rpartition("/")[2])
    return int(match["camera"]) if match else None


def slashes(path: str) -> str:
    """A relative path with forward slashes and without a leading ./, as archives written on Windows have it."""
    path = path.replace("\\", "/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path


def without_spelled_breaks(text: str) -> str:
    """A caption with a space for each line break that it spells out, by a slash or a backslash before n; any other as it is.

    A slash before a small letter is the writer's own where no sentence ends before it: "a red/navy coat", "BLACK /navy" and
    "(red), /navy" stay.
    """
    if not _SPELLED_BREAK.search(text):
        return text
    return " ".join(_SPELLED_BREAK.sub(" ", text).split())


def is_safe_name(name: str) -> bool:
    """Whether a path from a file stays inside its folder, and can be a path at all."""
    return (
        bool(name)
        and not name.startswith("/")
        and not re.match(r"[A-Za-z]:/", name)
        and not {"\\", "\0"} & set(name)
        and ".." not in name.split("/")
    )


def shown(value: Any) -> str:
    """A value for a message: as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
