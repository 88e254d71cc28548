"""Tar index: random access to members and their bytes, in any order and within bounded memory.

One pass over the headers fills a table on disk; then a sample's members are found together wherever they lie, a link finds its target,
and a name that is there twice is seen. A compressed or remote file is copied out to a temporary file first (TMPDIR needs room for one
shard). Knows tar; not images, captions or data sets.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import groupby, islice
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self

from reid_ray.scratch import scratch_table
from reid_ray.storage.regular_files import raise_if_system

Kind = Literal["file", "sparse", "hard link", "symbolic link", "other"]
_BLOCK = 512
_CHUNK = 1 << 20
_MAX_HEADER = 1 << 20  # no name or attribute is longer: a header that claims more is damaged
_HOPS = 8
_ROWS = 1000
_COLUMNS = "path, name, key, suffix, kind, size, offset, target"
# What tarfile and the decompressors raise on damaged files, found by fuzzing.
_DAMAGE = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    zlib.error,
    lzma.LZMAError,
)
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_ZSTD = b"\x28\xb5\x2f\xfd"


class Member(NamedTuple):
    """One member; key and suffix are its name up to and from the first dot of the last part, as webdataset has it."""

    name: str
    key: str
    suffix: str
    kind: Kind
    size: int
    offset: int  # of the data; of the header where the kind is sparse
    target: str  # of a link


class NoMemberError(Exception):
    """A member without bytes. `reason` is a short code to count by: link_outside, not_a_file or unreadable_member."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class TarIndex:
    """The members of one tar file; a context manager.

    Args:
        stream: the file, from its beginning, with seek.
        local: whether seeking is cheap.
        max_bytes: a longer member is read cut to one byte more.
    """

    def __init__(self, stream: BinaryIO, *, local: bool, max_bytes: int) -> None:
        self._file, self._local, self._max_bytes = stream, local, max_bytes
        self._links = False
        self.broken: str | None = None  # why the file ends before its end
        self.last: str | None = None  # the key of the last member before it

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._sql = stack.enter_context(closing(scratch_table()))
            self._sql.execute(
                "CREATE TABLE member (position INTEGER PRIMARY KEY, path BLOB, name BLOB, key BLOB, suffix BLOB, kind TEXT, size INTEGER, "
                "offset INTEGER, target BLOB)"
            )
            self._spool(stack)
            rows = self._headers()
            while batch := list(islice(rows, _ROWS)):
                self._sql.executemany(
                    "INSERT INTO member (path, name, key, suffix, kind, size, offset, target) VALUES (?,?,?,?,?,?,?,?)", batch
                )
            self._sql.execute("CREATE INDEX by_key ON member (key, position)")
            if self._links:
                self._sql.execute("CREATE INDEX by_path ON member (path)")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def samples(self) -> Iterator[tuple[str, list[Member]]]:
        """(key, its members in their order), by the place of each key's first member."""
        query = (
            "SELECT name, m.key, suffix, kind, size, offset, target FROM member m "
            "JOIN (SELECT key, MIN(position) AS first FROM member GROUP BY key) k ON m.key = k.key ORDER BY k.first, m.position"
        )
        for key, rows in groupby(self._sql.execute(query), key=lambda row: row[1]):
            yield _text(key), [_member(row) for row in rows]

    def most_members(self) -> int | None:
        """The largest number of members of a sample if any sample's members are not neighbours, else None."""
        sizes = "SELECT COUNT(*) AS n, MAX(position) - MIN(position) >= COUNT(*) AS apart FROM member GROUP BY key"
        query = f"SELECT MAX(n), MAX(apart) FROM ({sizes})"
        most, apart = self._sql.execute(query).fetchone()
        return int(most) if apart else None

    def read(self, member: Member) -> bytes:
        """A member's bytes, those of its target if it is a link.

        Raises:
            NoMemberError: there are none, or the file has changed since it was opened.
        """
        for _ in range(_HOPS):
            if member.kind not in ("hard link", "symbolic link"):
                break
            folder = posixpath.dirname(member.name) if member.kind == "symbolic link" else ""
            found = self._find(posixpath.normpath(posixpath.join(folder, member.target)))
            if found is None:
                raise NoMemberError("link_outside", f"{member.name} is a {member.kind} to {member.target}, which is not in the shard")
            member = found
        else:
            raise NoMemberError("link_outside", f"{member.name} is a link that leads to itself")
        if member.kind == "other":
            raise NoMemberError("not_a_file", f"{member.name} is no file but a device, a pipe or of an unknown kind")
        try:
            data = self._sparse(member) if member.kind == "sparse" else self._plain(member)
        except _DAMAGE as error:
            raise_if_system(error)
            raise NoMemberError("unreadable_member", f"{member.name} cannot be read ({error})") from None
        if len(data) < min(member.size, self._max_bytes + 1):
            raise NoMemberError("unreadable_member", f"{member.name} is cut")
        return data

    def digest(self, member: Member) -> bytes:
        """A digest of a member's bytes, or of its name where it has none."""
        try:
            return hashlib.sha256(self.read(member)).digest()
        except NoMemberError as error:
            return str(error).encode("utf-8", "surrogatepass")

    def _plain(self, member: Member) -> bytes:
        self._file.seek(member.offset)
        return self._file.read(min(member.size, self._max_bytes + 1))

    def _sparse(self, member: Member) -> bytes:
        self._file.seek(member.offset)
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            content = tar.extractfile(tar.next() or tarfile.TarInfo())
            return content.read(self._max_bytes + 1) if content else b""

    def _find(self, path: str) -> Member | None:
        query = "SELECT name, key, suffix, kind, size, offset, target FROM member WHERE path = ? ORDER BY position LIMIT 1"
        row = self._sql.execute(query, (_bytes(path),)).fetchone()
        return _member(row) if row else None

    def _spool(self, stack: ExitStack) -> None:
        """Replace the stream by a plain file on this machine, if it is not one already."""
        head = self._file.read(6)
        self._file.seek(0)
        if head.startswith(_ZSTD):
            self.broken = "it is compressed with zstd, which is not read here; unpack it"
        opener = next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), None)
        if self._local and opener is None:
            return
        source = self._file if opener is None else opener(self._file)
        self._file = stack.enter_context(tempfile.TemporaryFile(prefix="reid_ray_tar_"))  # noqa: SIM115 - closed by the stack
        try:
            while data := source.read(_CHUNK):
                self._file.write(data)
        except _DAMAGE as error:
            raise_if_system(error)
            self.broken = str(error) or "its compressed data end too early"

    def _headers(self) -> Iterator[tuple[Any, ...]]:
        """A row per member but folders and hidden ones; goes on behind an end mark, where tars were joined."""
        start: int | None = 0
        while start is not None:
            self._file.seek(start)
            watched: Any = _HeaderReader(self._file)
            at = start
            try:
                with tarfile.open(fileobj=watched, mode="r:") as archive:
                    tar: Any = archive
                    while (info := tar.next()) is not None:
                        tar.members.clear()  # it would keep them all
                        if info.offset < at or tar.offset <= info.offset:
                            raise tarfile.ReadError("a header points back")
                        at = tar.offset
                        if (row := _row(info)) is not None:
                            self.last = _split(info.name)[0]
                            self._links = self._links or "link" in row[4]
                            yield row
                    at = tar.offset
            except _DAMAGE as error:
                raise_if_system(error)
                self.broken = self.broken or f"{error}, after byte {at:,}"
                return
            start = self._after_end(at)
        if self.last is None:
            self.broken = self.broken or "it holds no member"

    def _after_end(self, at: int) -> int | None:
        """Where the next joined tar begins behind the end mark at `at`; None if there is none, or no end mark."""
        self._file.seek(at)
        block = self._file.read(_BLOCK)
        if len(block) < _BLOCK or block.strip(b"\0"):
            what = "a header is damaged" if len(block) == _BLOCK else "it has no end mark"
            self.broken = self.broken or f"{what}, after byte {at:,}"
            return None
        at += _BLOCK
        while data := self._file.read(_CHUNK):
            if data.strip(b"\0"):
                return at + (len(data) - len(data.lstrip(b"\0"))) // _BLOCK * _BLOCK
            at += len(data)
        return None


class _HeaderReader:
    """A file of which only headers are read: one that claims to be longer than any is damaged, and must not fill memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError("a header is too long")
        return self._file.read(size)


def _row(info: tarfile.TarInfo) -> tuple[Any, ...] | None:
    """The columns of a member; None for folders and hidden files, which are no part of any format here."""
    if info.isdir() or posixpath.basename(info.name).startswith("."):
        return None
    kind: Kind = "other"
    if info.isreg():
        kind = "sparse" if info.issparse() else "file"
    elif info.islnk() or info.issym():
        kind = "hard link" if info.islnk() else "symbolic link"
    offset = info.offset if kind == "sparse" else info.offset_data
    names = (posixpath.normpath(info.name), info.name, *_split(info.name))
    return (*map(_bytes, names), kind, info.size, offset, _bytes(info.linkname))


def _split(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    first, _, suffix = base.partition(".")
    return folder + slash + first, suffix


def _member(row: tuple[Any, ...]) -> Member:
    name, key, suffix, kind, size, offset, target = row
    return Member(_text(name), _text(key), _text(suffix), kind, size, offset, _text(target))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
