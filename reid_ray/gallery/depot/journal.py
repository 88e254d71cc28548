"""The log of a gallery (write-ahead): what was written since the last generation, frame by frame, appended and synced in groups.

A frame is acknowledged once it is where the log lies: it survives kill -9 and a power cut. A torn frame at the end was never acknowledged;
it is where reading stops. Several threads may append at once: their frames share one sync or one object (group commit). Knows bytes, and
one Arrow table a frame; not what a frame does, or where the log lies.
"""

from __future__ import annotations

import io
import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from reid_ray.errors import DataError

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


def first_number(frames: bytes) -> int:
    """The number of the first of some frames; 0 of none."""
    return int(_HEAD.unpack_from(frames)[3]) if len(frames) >= _HEAD.size else 0


def read_records(file: BinaryIO, number: int | None = None) -> Iterator[tuple[LogRecord, int]]:
    """(frame, bytes of it) of each whole frame from where `file` is on; a torn one ends it, and one out of order.

    Args:
        file: of frames.
        number: of the first one; None takes what it has.
    """
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        mark, length, check, found = _HEAD.unpack(head)
        number = found if number is None else number
        if mark != _MARK or length > _LONGEST or found != number:
            return
        data = file.read(length)
        if len(data) != length or zlib.crc32(data) != check:
            return
        number += 1
        yield LogRecord.unpacked(data), _HEAD.size + length


class LogEnd(Protocol):
    """Interface (protocol) of where a log goes on, for its one writer."""

    def append(self, frames: Sequence[bytes]) -> list[int]:
        """Write frames, and return once they outlast a kill: the position after each.

        Raises:
            OSError, DataError: they could not be written, or another is the writer now.
        """
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


class Journal:
    """Group commit at the end of a log, for its one writer.

    Args:
        end: where the log goes on.
        number: frames that it holds.
        apply: called with each frame that was written and the position after it, in the log's order, before its writer goes on.
    """

    def __init__(self, end: LogEnd, number: int, apply: Callable[[LogRecord, int], None]) -> None:
        self._end, self._number, self._apply = end, number, apply
        self._lock = threading.Lock()  # of the fields below
        self._waiting: list[tuple[LogRecord, threading.Event, list[BaseException]]] = []
        self._leading = threading.Lock()  # whoever holds it writes for all who wait
        self._broken: Exception | None = None

    def append(self, frame: LogRecord) -> None:
        """Write a frame and wait until it outlasts a kill, with what other threads append meanwhile.

        Raises:
            OSError, DataError: it could not be written; nothing of it is acknowledged, and the journal takes no more.
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
        """Give back what is open, and take no more."""
        self._broken = self._broken or DataError("this writer of the gallery is closed, or came to grief; open the gallery again")
        self._end.close()

    def _write_group(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting, []
        packed = [frame.packed(self._number + at) for at, (frame, _, _) in enumerate(group)]
        try:
            if self._broken is not None:
                raise self._broken
            for (frame, _, _), position in zip(group, self._end.append(packed), strict=True):
                self._number += 1
                self._apply(frame, position)
        except Exception as error:  # noqa: BLE001 - each of the group's writers raises it; what was written counts when it is opened again
            self._broken = error
            for _, _, failed in group:
                failed.append(error)
        for _, done, _ in group:
            done.set()
