"""Exception types for errors that a user can mend, and sanitised reasons of errors that a library raised.

Each message of a ReidRayError names the file or field at fault and the remedy, in one sentence.
"""

from __future__ import annotations

import re
import tempfile

_REASON_CHARS = 200
_NAME_CHARS = 40
_NESTED = 4  # brackets within brackets that are emptied
_CUT = "\N{HORIZONTAL ELLIPSIS}"
_OBJECT = re.compile(r"<[^<>]*\b(?:object|image mode|at 0x)[^<>]*>")
_QUOTED = re.compile(r"""(?<![\w'"])b?(?P<quote>['"])(?P<inside>(?:\\.|(?!(?P=quote)(?!\w))[^\\])*\\?)(?:(?P=quote)(?!\w)|$)""")
# What is never closed is data whose end was cut off; so are quotes, above.
_OPEN = re.compile(r"[\[{](?!Errno)[^\]}]*$")
_BRACKETS = re.compile(r"\[(?!Errno)[^\[\]{}]*\]|\{[^\[\]{}]*\}")
_CHANGING = (
    (re.compile(r"\s*\bat 0x[0-9A-Fa-f]+"), ""),
    (re.compile(r"\b0x[0-9A-Fa-f]{6,}"), _CUT),
    (re.compile(rf"(?:{re.escape(tempfile.gettempdir())}|/tmp|/var/tmp|/dev/shm)/[^\s'\",;:)]+"), "(a temporary file)"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "(an id)"),
    (re.compile(r"\b(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{16,}\b"), "(an id)"),
    (re.compile(r"\bpid[ =:]*\d+"), f"pid {_CUT}"),
)


class ReidRayError(Exception):
    """Base of every error that a user can mend; jobs print its message without a traceback and exit with 2."""


class ConfigError(ReidRayError):
    """A configuration is unknown, contradictory or out of range. Names the dotted key."""


class DataError(ReidRayError):
    """An input file or table cannot be used at all. Rows at fault are counted instead, never raised."""


class ResourceError(ReidRayError):
    """The cluster cannot give what the job asks for. Names what is missing, before any actor starts."""


class TrainingError(ReidRayError):
    """Training cannot go on, and would end so again, such as by a loss that is not a number; on all workers alike. Names the step."""


class EngineDownError(ReidRayError):
    """A language model's engine does not work: it dies at its start or on every row, or rejects whatever it is asked."""


def reason_of(error: BaseException) -> str:
    """Why a library failed, on one line that may be kept in a row or a log: its kind and message, at most 200 characters.

    The innermost cause speaks: what wraps it repeats it, or prints its arguments. Nothing of the data stays (texts in quotes, lists,
    dictionaries, printed objects), nor what another run would write otherwise (addresses, temporary files, ids drawn at random).
    """
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    return plain_reason(f"{type(error).__name__}: {error}".removesuffix(": "))


def plain_reason(text: str) -> str:
    """A library's message on one line, without data and without what changes from run to run; see reason_of."""
    said = " ".join(text[: 50 * _REASON_CHARS].split())
    said = _OBJECT.sub(_CUT, said)
    said = _QUOTED.sub(_without_text, said)
    for _ in range(_NESTED):
        said = _BRACKETS.sub(_CUT, said)
    said = _OPEN.sub(_CUT, said)
    for pattern, instead in _CHANGING:
        said = pattern.sub(instead, said)
    said = said.replace(_CUT, "...")
    return said if len(said) <= _REASON_CHARS else f"{said[: _REASON_CHARS - 4]} ..."


def _without_text(quoted: re.Match[str]) -> str:
    """A field's name or a path in quotes stays; what may be somebody's words, or bytes, does not."""
    inside = quoted["inside"]
    short = len(inside) <= _NAME_CHARS and inside.isascii() and not any(c.isspace() or c == "\\" for c in inside)
    return quoted[0] if short or inside.startswith("/") else _CUT
