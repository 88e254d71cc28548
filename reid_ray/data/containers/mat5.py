"""MAT-5 parser with bounds checks: vectors and lists of texts out of a MATLAB file (versions 5 to 7), no length believed unchecked.

SciPy's reader crashes the process on a damaged file. Numbers come as flat lists in MATLAB's order, a char array as a text, a cell array
as a list of such; sparse matrices, structures and objects come as None. Level 7.3 is HDF5 and not read here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_CELL, _CHAR, _NUMBERS = 1, 4, range(6, 16)
_FORMATS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MAX_BYTES = 256 << 20  # of one variable, unpacked
_MAX_DEPTH = 16


def read_mat5(data: bytes) -> dict[str, Any]:
    """{variable: value} of a whole file.

    Raises:
        ValueError: it is no such file, or is cut or damaged.
    """
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[:20].startswith(b"MATLAB 7.3"):
        raise ValueError("is a MATLAB file of version 7.3; save it with -v7")
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("is no MATLAB file of level 5")
    order = "<" if data[126:128] == b"IM" else ">"
    found = {}
    try:
        for kind, content in _elements(data[_HEADER:], order):
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                content = unpacker.decompress(content, _MAX_BYTES)  # noqa: PLW2901 - the same element, unpacked
                if not unpacker.eof:
                    raise ValueError("a variable is cut or far too large")
                (kind, content), *_ = _elements(content, order)  # noqa: PLW2901
            if kind == _MATRIX:
                name, value = _matrix(content, order, 0)
                found[name] = value
    except (struct.error, zlib.error) as error:
        raise ValueError(f"is damaged ({error})") from None
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of elements that follow each other."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # short: type and size share a word, the content is the next one
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            after = start + size if kind == _COMPRESSED else start + (size + 7) // 8 * 8
        if start + size > len(data) or (start == at + 4 and size > 4):
            raise ValueError("is cut or damaged: a part reaches beyond its whole")
        yield kind, data[start : start + size]
        at = after


def _matrix(content: bytes, order: str, depth: int) -> tuple[str, Any]:
    """(name, value) of one array; an empty content is an empty cell."""
    if not content:
        return "", None
    if depth > _MAX_DEPTH:
        raise ValueError("is damaged: cells within cells without end")
    parts = list(_elements(content, order))
    if len(parts) < 3 or len(parts[0][1]) < 4:
        raise ValueError("is damaged: an array lacks its head")
    array = struct.unpack_from(f"{order}I", parts[0][1])[0] & 0xFF
    name, values = parts[2][1].decode("latin-1"), parts[3:]
    if array == _CELL:
        return name, [_matrix(part, order, depth + 1)[1] if kind == _MATRIX else None for kind, part in values]
    if array == _CHAR:
        return name, _text(*values[0], order) if values else ""
    if array in _NUMBERS:
        return name, _numbers(*values[0], order) if values else []
    return name, None


def _numbers(kind: int, content: bytes, order: str) -> list[Any]:
    if kind not in _FORMATS:
        raise ValueError(f"is damaged: numbers of the unknown type {kind}")
    letter = _FORMATS[kind]
    return list(struct.unpack(f"{order}{len(content) // struct.calcsize(f'={letter}')}{letter}", content))


def _text(kind: int, content: bytes, order: str) -> str:
    if kind not in _TEXTS:
        raise ValueError(f"is damaged: a text of the unknown type {kind}")
    encoding = _TEXTS[kind] + ({"<": "-le", ">": "-be"}[order] if _TEXTS[kind] in ("utf-16", "utf-32") else "")
    return content.decode(encoding)
