"""Files of the audit log's chain: audit-000001.jsonl and so on, appended to by several processes under one lock.

The lock is flock(2) on a file beside them, which the kernel releases when its holder dies. Whoever has it first follows what others
appended since. A line that a crash cut off stays as it is: the next record says that it is none. Knows files and lines; not what they say.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reid_ray.serve.access.audit.hash_chain import BEGINNING, SHORTENED, Link, line_after, link_of, mending, record_of
from reid_ray.storage.files import sync
from reid_ray.versions import number_of

_NAME = re.compile(r"audit-(\d{6,})\.jsonl")
_LOCK = "audit.lock"
_BLOCK = 1 << 18
_LITTLE = 1 << 16


def chain_files(folder: Path) -> list[Path]:
    """The chain's files in their order."""
    numbered = [(int(found[1]), path) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def number_in(path: Path) -> int:
    """The number in a file's name."""
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def now_in_words() -> str:
    """The time as records state it: UTC, to the millisecond."""
    now = time.time()
    return f"{_second_in_words(int(now))}.{int(now * 1000) % 1000:03d}Z"


@functools.lru_cache(maxsize=2)
def _second_in_words(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """No process appends to the chain meanwhile; False, unless one waits: one does."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


class ChainFiles:
    """One process' way to append to the chain in a folder. Not for several threads.

    Args:
        folder: where the files lie; it is there.
        file_bytes: a file of this size is followed by a new one.
    """

    def __init__(self, folder: Path, *, file_bytes: int) -> None:
        self._folder, self._file_bytes = folder, file_bytes
        self._descriptor = -1
        self._number = 0  # of the file that is open
        self._size = 0  # of it, up to where this process knows it
        self._link = BEGINNING

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records, whole and in a row. They are in the file when this returns, and on the disk after `sync`.

        Raises:
            OSError: they cannot be written; then none of them is.
        """
        with locked(self._folder):
            first = self._follow()
            if self._size >= self._file_bytes:
                self._begin_next()
            self._add([*first, *records])

    def append_at_once(self, records: Sequence[Mapping[str, Any]]) -> bool:
        """As `append` where that takes no more than to read and write a little of the open file; else False, and nothing is done.

        So it is where another process has the lock, or appended much since, and where a file begins.

        Raises:
            OSError: as `append`.
        """
        if self._descriptor < 0 or self._link == BEGINNING or self._size >= self._file_bytes:
            return False
        with locked(self._folder, wait=False) as is_locked:
            if not is_locked or self._path(self._number + 1).exists():
                return False
            if not 0 <= os.fstat(self._descriptor).st_size - self._size <= _LITTLE:
                return False
            self._add([*self._catch_up(), *records])
        return True

    def sync(self) -> None:
        """Bring what was appended to the disk."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _add(self, records: Sequence[Mapping[str, Any]]) -> None:
        lines, link = [], self._link
        for fields in records:
            line, link = line_after(link, fields)
            lines.append(line)
        self._write(b"".join(lines))
        self._link = link

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            os.ftruncate(self._descriptor, self._size)  # nobody was told that these were written
            raise
        self._size += len(data)

    def _follow(self) -> list[dict[str, Any]]:
        """Go to the end of the chain as it is now. Returns the records to begin with: what this log has to say about itself."""
        first: list[dict[str, Any]] = []
        if self._descriptor < 0:
            files = chain_files(self._folder)
            if files:
                self._link = self._last_link_before(files)
                self._open(files[-1])
            else:
                self._begin_next()
        while (later := self._path(self._number + 1)).exists():
            first += self._catch_up()
            self._open(later)
        first += self._catch_up()
        if self._link == BEGINNING:
            first.append({"at": now_in_words(), "verb": "audit.begun", "what": {"format": number_of("audit")}})
        return first

    def _catch_up(self) -> list[dict[str, Any]]:
        """Read what others appended to the open file, or mend its end."""
        size = os.fstat(self._descriptor).st_size
        if size == self._size:
            return []
        first = []
        if size < self._size:  # it was cut while it was open here: what follows the cut must say so
            what = {"known": self._link.number, "hash": self._link.hash}
            first.append({"at": now_in_words(), "verb": SHORTENED, "what": what})
            self._size = 0
        link, fragment = _end_of(self._descriptor, self._size, size)
        self._link = link or self._link
        self._size = size
        whole = record_of(fragment) if fragment else None
        if fragment:
            self._write(b"\n")
        if whole is not None:  # all but its end of line was written
            self._link = link_of(whole)
        elif fragment:
            first.append({"at": now_in_words(), **mending(fragment)})
        return first

    def _last_link_before(self, files: Sequence[Path]) -> Link:
        """Where the chain stands at the end of the files before the last, which may be empty still."""
        for path in reversed(files[:-1]):
            with path.open("rb") as file:
                link, _ = _end_of(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            if link is not None:
                return link
        return BEGINNING

    def _begin_next(self) -> None:
        self.sync()
        path = self._path(self._number + 1)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        sync(self._folder)
        self._open(path)

    def _open(self, path: Path) -> None:
        self.close()
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._number, self._size = number_in(path), 0

    def _path(self, number: int) -> Path:
        return self._folder / f"audit-{number:06d}.jsonl"


def _end_of(descriptor: int, start: int, size: int) -> tuple[Link | None, bytes]:
    """Where the chain stands with a file's last sound line from `start` on (None if there is none), and what follows its last end of line.

    It is read backwards, so that a large file costs what a small one does.
    """
    at, data = size, b""
    while at > start:
        step = min(_BLOCK, at - start)
        at -= step
        data = os.pread(descriptor, step, at) + data
        *whole, fragment = data.split(b"\n")
        for line in reversed(whole[0 if at == start else 1 :]):
            record = record_of(line)
            if record is not None:
                return link_of(record), fragment
    return None, data.rpartition(b"\n")[2]
