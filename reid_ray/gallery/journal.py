"""The log of a gallery (write-ahead): what was written since the last generation, frame by frame, appended and synced in groups.

A frame is acknowledged once it is on the disk: it survives kill -9 and a power cut. A torn frame at the end was never acknowledged; it is
where reading stops. Several threads may append at once: their frames share one sync (group commit). Knows bytes, and one Arrow table a
frame; not what a frame does.
"""

from __future__ import annotations

import io
import json
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from reid_ray.storage.files import sync, write_durably

_HEAD = struct.Struct("<4sIIQ")  # mark, length and CRC-32 of what follows, number of the frame
_MARK = b"RRgl"
_LONGEST = 1 << 31


@dataclass(frozen=True)
class LogRecord:
    """One write: what it does (JSON) and the table that goes with it, if any."""

    what: dict[str, Any]
    table: pa.Table | None = None

    def packed(self, number: int) -> bytes:
        """The frame as bytes."""
        text = json.dumps(self.what, ensure_ascii=False).encode()
        body = io.BytesIO()
        body.write(len(text).to_bytes(4, "little"))
        body.write(text)
        if self.table is not None:
            with pa.ipc.new_stream(body, self.table.schema) as writer:
                writer.write_table(self.table)
        data = body.getvalue()
        return _HEAD.pack(_MARK, len(data), zlib.crc32(data), number) + data

    @classmethod
    def unpacked(cls, data: bytes) -> LogRecord:
        """The frame of bytes."""
        length = int.from_bytes(data[:4], "little")
        rest = memoryview(data)[4 + length :]
        return cls(json.loads(data[4 : 4 + length]), pa.ipc.open_stream(pa.py_buffer(rest)).read_all() if len(rest) else None)


def make_log(path: Path) -> None:
    """An empty log, on the disk."""
    write_durably(path, lambda hidden: hidden.write_bytes(b""))


def read_records(path: Path, offset: int = 0, number: int = 0) -> Iterator[tuple[LogRecord, int]]:
    """(frame, offset after it) of each whole frame from `offset` on, the first of them of that number; a torn one ends it.

    Raises:
        FileNotFoundError: the log is gone: there is a newer generation.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            mark, length, check, found = _HEAD.unpack(head)
            if mark != _MARK or length > _LONGEST or found != number:
                return
            data = file.read(length)
            if len(data) != length or zlib.crc32(data) != check:
                return
            offset += _HEAD.size + length
            number += 1
            yield LogRecord.unpacked(data), offset


class Journal:
    """The end of a log, for its one writer. What lies beyond the last whole frame is cut off.

    Args:
        path: the log.
        offset: where its whole frames end.
        number: how many they are.
        apply: called with each frame that is on the disk and the offset after it, in the log's order, before its writer goes on.
    """

    def __init__(self, path: Path, offset: int, number: int, apply: Callable[[LogRecord, int], None]) -> None:
        self.path, self._offset, self._number, self._apply = path, offset, number, apply
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        if os.fstat(self._file).st_size > offset:
            os.ftruncate(self._file, offset)
            os.fsync(self._file)
        self._lock = threading.Lock()  # of the fields below
        self._waiting: list[tuple[LogRecord, threading.Event, list[BaseException]]] = []
        self._leading = threading.Lock()  # whoever holds it writes for all who wait
        self._broken: Exception | None = None

    def append(self, frame: LogRecord) -> None:
        """Write a frame and wait until it is on the disk, with what other threads append meanwhile.

        Raises:
            OSError: it could not be written; nothing of it counts, and the journal takes no more.
        """
        done, failed = threading.Event(), list[BaseException]()
        with self._lock:
            self._waiting.append((frame, done, failed))
        with self._leading:
            if not done.is_set():
                self._write_group()
        if failed:
            raise failed[0]

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write_group(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting, []
        packed = [frame.packed(self._number + at) for at, (frame, _, _) in enumerate(group)]
        try:
            if self._broken is not None:
                raise self._broken
            self._write(b"".join(packed))
            for (frame, _, _), data in zip(group, packed, strict=True):
                self._number += 1
                self._offset += len(data)
                self._apply(frame, self._offset)
        except Exception as error:  # noqa: BLE001 - each of the group's writers raises it; what is on the disk counts when it is opened again
            self._broken = error
            for _, _, failed in group:
                failed.append(error)
        for _, done, _ in group:
            done.set()

    def _write(self, data: bytes) -> None:
        view, at = memoryview(data), self._offset
        try:
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
            sync(self.path)
        except OSError:
            os.ftruncate(self._file, self._offset)  # a full disk: what was written of it must not be read as a frame
            raise
