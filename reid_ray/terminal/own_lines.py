"""Console output of the job: lines on standard output, errors and bars on standard error.

Libraries print where they like; what this program prints goes through here, so that the two can be told apart (see quiet.py). Knows two
streams; not what is said. Without quiet_terminal these are sys.stdout and sys.stderr as they are at that moment.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast


class OwnStream(io.TextIOBase):
    """A text stream over a file descriptor that keeps nothing back: what could not be written is an error at once, and never later."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor, self._encoding = descriptor, encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the bytes that are written."""
        return self._encoding

    def write(self, text: str, /) -> int:
        """Write all of `text`; what the encoding does not have, as some bytes of a file's name, is escaped.

        Raises:
            OSError: nobody reads it any more, or the disk is full.
        """
        left = memoryview(text.encode(self._encoding, "backslashreplace"))
        while left:
            left = left[os.write(self._descriptor, left) :]
        return len(text)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Always."""
        return True


class _Nowhere(io.TextIOBase):
    """Where lines go of a process that was started with a stream closed."""

    def write(self, text: str, /) -> int:
        """Nothing is written."""
        return len(text)


_kept: tuple[OwnStream, OwnStream] | None = None


def standard_output() -> TextIO:
    """Where this program's lines go."""
    return cast(TextIO, _kept[0] if _kept is not None else sys.stdout or _Nowhere())


def standard_error() -> TextIO:
    """Where this program's errors and bars go."""
    return cast(TextIO, _kept[1] if _kept is not None else sys.stderr or _Nowhere())


def say(text: str = "") -> None:
    """Print a line on standard output, at once."""
    print(text, file=standard_output(), flush=True)


def say_json(value: object) -> None:
    """Print a value as JSON on standard output, for programs that read it."""
    say(json.dumps(value, indent=1, ensure_ascii=False))


def are_kept_apart() -> bool:
    """Whether this program's lines have streams of their own."""
    return _kept is not None


@contextmanager
def kept_apart(output: OwnStream, error: OwnStream) -> Iterator[None]:
    """For the time of the block what this program says goes to these two, whatever happens to sys.stdout and sys.stderr."""
    global _kept  # noqa: PLW0603 - a process has one terminal
    before, _kept = _kept, (output, error)
    try:
        yield
    finally:
        _kept = before
