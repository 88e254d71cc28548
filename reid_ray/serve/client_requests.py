"""What the client sends: questions as JSON, files that are open only while they are read, keys of changes. Knows values; not HTTP."""

from __future__ import annotations

import base64
import io
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote


class SentFile(io.RawIOBase):
    """A file that is open only while it is read: thousands may be sent at once."""

    def __init__(self, data: bytes | Path, sent: Callable[[int], object]) -> None:
        self._data, self._sent = data, sent
        self._size = len(data) if isinstance(data, bytes) else data.stat().st_size
        self._open: io.BufferedIOBase | None = None
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes; none at the end, which closes the file."""
        if self._open is None:
            self._open = io.BytesIO(self._data) if isinstance(self._data, bytes) else self._data.open("rb")
            self._open.seek(self._at)
        data = self._open.read(size)
        self._at += len(data)
        self._sent(len(data))
        if self._at >= self._size or not data:
            self._open.close()
            self._open = None
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if self._open is not None:
            self._open.seek(self._at)
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at


def asked(question: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A question as the service takes it: fields that are None are left out, pictures are base64."""
    question = given({**(question or {}), **fields})
    if "clues" in question:
        question["clues"] = [_clue(each) for each in question["clues"]]
    return question


def _clue(clue: Mapping[str, Any]) -> dict[str, Any]:
    image = clue.get("image")
    if isinstance(image, bytes | Path):
        data = image.read_bytes() if isinstance(image, Path) else image
        return {**clue, "image": base64.b64encode(data).decode("ascii")}
    return dict(clue)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without those that are None."""
    return {name: value for name, value in values.items() if value is not None}


def change_key() -> dict[str, str]:
    """The header that names a change, by which it is made once however often it is asked for."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def in_path(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")
