"""The entries of an LMDB file (data format 1, LMDB 0.9), read page by page with plain reads.

The library maps the file into memory, where a file that is cut or damaged ends the process with a bus error or a crash. Here every
number is checked against the page it stands in before it is used, so damage costs the entries it hit and nothing else. Reads
LUPerson's databases: one table, byte keys; knows pages and bytes, not images.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from reid_ray.errors import DataError
from reid_ray.storage.regular_files import open_regular, raise_if_system

_META = struct.Struct(
    "<II QQ 48s IHH QQQQQ QQ"
)  # magic, version, address, map size, free list, then the main table, last page, transaction
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = 16  # of a page: number u64, pad u16, flags u16, then the bounds of the free space, 2 x u16, or the page count u32
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04
_BIG, _SUB_TABLE, _DUPLICATES = 0x01, 0x02, 0x04  # flags of a leaf's node
_UNSUPPORTED = 0x02 | 0x04 | 0x08  # of a table: keys reversed, sorted duplicates, integer keys
_NO_PAGE = (1 << 64) - 1
_MAX_DEPTH = 32
_CACHED_PAGES = 256


class Entry(NamedTuple):
    """A key with its value, or with what is wrong with it; without a key, what is wrong with a whole page."""

    key: bytes | None
    value: bytes | None
    problem: str | None = None


class _Node(NamedTuple):
    key: bytes
    size: int  # of a leaf's value; of a branch, the page below
    flags: int
    data: int  # where the value begins in its page


class _DamagedError(Exception):
    """A page that cannot be what the page above says."""


class LmdbFile:
    """The main table of data.mdb; a context manager.

    Args:
        path: the file.
        max_bytes: a longer value comes cut to one byte more.

    Raises:
        DataError: the file cannot be read or does not begin as an LMDB does.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._cache: dict[int, tuple[bytes, list[_Node]]] = {}
        try:
            self._file = open_regular(path)
        except OSError as error:
            raise_if_system(error)
            raise DataError(f"{path}: cannot be read ({error})") from None
        self.size = os.fstat(self._file.fileno()).st_size
        try:
            self._page_bytes = self._read_page_size()
            self._depth, self.entries, self._root, self.whole_size = self._newest_meta()
        except DataError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def items(self) -> Iterator[Entry]:
        """Every entry in the order of the keys; a page that is damaged comes as one Entry without a key."""
        if self._root != _NO_PAGE:
            yield from self._walk(self._root, self._depth, set())

    def get(self, key: bytes) -> Entry | None:
        """One entry, or None if the key is not there."""
        if self._root == _NO_PAGE:
            return None
        number, depth = self._root, self._depth
        try:
            while depth > 1:
                _, nodes = self._cached(number, leaf=False)
                # the first key of a branch counts as lower than any
                number = nodes[bisect_right([node.key for node in nodes[1:]], key)].size
                depth -= 1
            page, nodes = self._cached(number, leaf=True)
        except _DamagedError as error:
            return Entry(None, None, str(error))
        position = bisect_right([node.key for node in nodes], key) - 1
        return self._entry(page, nodes[position]) if position >= 0 and nodes[position].key == key else None

    def _walk(self, number: int, depth: int, seen: set[int]) -> Iterator[Entry]:
        try:
            if number in seen:
                raise _DamagedError(f"page {number} is met twice")
            seen.add(number)
            page, nodes = self._nodes(number, leaf=depth == 1)
        except _DamagedError as error:
            yield Entry(None, None, str(error))
            return
        for node in nodes:
            if depth == 1:
                yield self._entry(page, node)
            else:
                yield from self._walk(node.size, depth - 1, seen)

    def _entry(self, page: bytes, node: _Node) -> Entry:
        if node.flags & (_SUB_TABLE | _DUPLICATES):
            return Entry(node.key, None, "is a named sub-database, not an image")
        wanted = min(node.size, self._max_bytes + 1)
        if not node.flags & _BIG:
            value = page[node.data : node.data + wanted]
            return Entry(node.key, value) if len(value) == wanted else Entry(node.key, None, "its value reaches beyond its page")
        number = int.from_bytes(page[node.data : node.data + 8], "little")
        if node.data + 8 > len(page) or (number + 1) * self._page_bytes > self.size:
            return Entry(node.key, None, f"its value lies on page {number}, beyond the end of the file")
        data = os.pread(self._file.fileno(), _HEADER + wanted, number * self._page_bytes)
        if int.from_bytes(data[:8], "little") != number or not data[10] & _OVERFLOW:
            return Entry(node.key, None, f"page {number}, where its value should be, is damaged")
        if len(data) < _HEADER + wanted:
            return Entry(node.key, None, f"its value is cut by the end of the file (page {number})")
        return Entry(node.key, data[_HEADER:])

    def _cached(self, number: int, *, leaf: bool) -> tuple[bytes, list[_Node]]:
        if number not in self._cache:
            if len(self._cache) == _CACHED_PAGES:
                self._cache.clear()
            self._cache[number] = self._nodes(number, leaf=leaf)
        return self._cache[number]

    def _nodes(self, number: int, *, leaf: bool) -> tuple[bytes, list[_Node]]:
        """A page of the tree and its nodes, at least one."""
        if (number + 1) * self._page_bytes > self.size:
            raise _DamagedError(f"page {number} lies beyond the end of the file")
        page = os.pread(self._file.fileno(), self._page_bytes, number * self._page_bytes)
        found, _, flags, lower, upper = struct.unpack_from("<QHHHH", page)
        count = (lower - _HEADER) // 2
        if found != number or not flags & (_LEAF if leaf else _BRANCH) or count < 1 or not lower <= upper <= self._page_bytes:
            raise _DamagedError(f"page {number} is damaged")
        nodes = []
        for at in struct.unpack_from(f"<{count}H", page, _HEADER):
            if not _HEADER <= at <= self._page_bytes - 8:
                raise _DamagedError(f"page {number} is damaged")
            low, high, node_flags, key_bytes = struct.unpack_from("<HHHH", page, at)
            size = low | high << 16 | (0 if leaf else node_flags << 32)
            if at + 8 + key_bytes > self._page_bytes:
                raise _DamagedError(f"page {number} is damaged")
            nodes.append(_Node(page[at + 8 : at + 8 + key_bytes], size, node_flags, at + 8 + key_bytes))
        return page, nodes

    def _read_page_size(self) -> int:
        head = os.pread(self._file.fileno(), _HEADER + _META.size, 0)
        if len(head) == _HEADER + _META.size:
            magic, version, _, _, free_list, *_ = _META.unpack_from(head, _HEADER)
            page_bytes = int.from_bytes(free_list[:4], "little")
            if magic == _MAGIC and version == _VERSION and page_bytes in (1 << bits for bits in range(8, 17)):
                return page_bytes
        raise DataError(f"{self._path}: is no LMDB of data format {_VERSION}; fetch or write it again")

    def _newest_meta(self) -> tuple[int, int, int, int]:
        """(depth, entries, root, bytes of a whole file) by the newer of the two meta pages; one may be damaged."""
        found = []
        for number in (0, 1):
            data = os.pread(self._file.fileno(), _META.size, number * self._page_bytes + _HEADER)
            if len(data) < _META.size:
                continue
            magic, version, _, _, _, _, flags, depth, _, _, _, entries, root, last_page, transaction = _META.unpack(data)
            if magic == _MAGIC and version == _VERSION and depth <= _MAX_DEPTH and (root == _NO_PAGE or depth):
                found.append((transaction, flags, depth, entries, root, last_page))
        if not found:
            raise DataError(f"{self._path}: is a damaged LMDB, neither of its two headers can be used; fetch the file again")
        _, flags, depth, entries, root, last_page = max(found)
        if flags & _UNSUPPORTED:
            raise DataError(f"{self._path}: is an LMDB with integer keys, reversed keys or duplicates, which LUPerson's are not")
        return depth, entries, root, (last_page + 1) * self._page_bytes
