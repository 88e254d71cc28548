"""The log of decisions: a file of JSON lines that is only ever added to, by any number of people and processes at once.

A line is written whole, under the file's lock, and is on disk before it is answered; what a crash cut off at the end is no line, and the
next one begins anew. Whoever has the file open reads what others added. Knows files; not what follows from decisions.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from reid_ray.errors import DataError
from reid_ray.versions import check_json, numbered

Said = Literal["same", "different", "skip", "out", "undo"]


@dataclass(frozen=True)
class Decision:
    """What somebody said.

    Attributes:
        number: its line, from 1.
        says: same and different of two images; skip, of two; out: this image is taken out of its identity; undo of an earlier number.
        images: image_ids.
        of: the number that is undone.
        who: a name that the page keeps for whoever uses it.
    """

    number: int
    says: Said
    images: tuple[str, ...] = ()
    of: int | None = None
    who: str = ""


class DecisionLog:
    """A file of decisions, open to read and to add.

    Args:
        path: the file.
        make: whether to make it if it is not there; its folder must be.

    Raises:
        DataError: it cannot be opened, or is no file of decisions.
    """

    def __init__(self, path: str | Path, *, make: bool = True) -> None:
        self.path = Path(path)
        self.decisions: list[Decision] = []
        self._read, self._begun = 0, False  # bytes; whether the first line is through
        try:
            self._file: BinaryIO = os.fdopen(
                os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT * make | os.O_NOFOLLOW, 0o600), "r+b", 0
            )
        except FileNotFoundError:
            if make:
                raise DataError(f"{self.path}: its folder is not there; make it, or name a file in another") from None
            raise DataError(f"{self.path}: there is no such file; name the one that reid-ray label ask keeps decisions in") from None
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be opened to keep decisions in ({error.strerror}); name a file in a folder of yours"
            ) from None
        try:
            with self._locked():
                if os.fstat(self._file.fileno()).st_size == 0:
                    self._write({**numbered("decisions")})
            self.refresh()
        except BaseException:
            self.close()
            raise

    @property
    def answered(self) -> int:
        """How many decisions stand: neither skipped nor undone."""
        undone = {decision.of for decision in self.decisions if decision.says == "undo"}
        return sum(decision.says not in ("skip", "undo") and decision.number not in undone for decision in self.decisions)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def refresh(self) -> bool:
        """Read what was added, by whomever; whether there was anything.

        Raises:
            DataError: a line is no decision.
        """
        data = os.pread(self._file.fileno(), max(0, os.fstat(self._file.fileno()).st_size - self._read), self._read)
        whole = data[: data.rfind(b"\n") + 1]
        before = len(self.decisions)
        for line in whole.splitlines():
            self._take(line)
        self._read += len(whole)
        return len(self.decisions) > before

    def add(self, says: Said, *images: str, of: int | None = None, who: str = "") -> Decision:
        """Write a decision down, after all that others have added; it is on disk when this returns."""
        with self._locked():
            self.refresh()
            number = len(self.decisions) + 1
            record: dict[str, Any] = {
                "says": says,
                "images": list(images),
                "who": who,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            self._write(record if of is None else {**record, "of": of})
            self.refresh()
        return self.decisions[number - 1]

    def _write(self, record: dict[str, Any]) -> None:
        size = os.fstat(self._file.fileno()).st_size
        torn = size > 0 and os.pread(self._file.fileno(), 1, size - 1) != b"\n"
        os.write(self._file.fileno(), (b"\n" if torn else b"") + json.dumps(record).encode() + b"\n")
        os.fsync(self._file.fileno())

    def _take(self, line: bytes) -> None:
        if not self._begun and b'"format"' not in line:
            raise DataError(f"{self.path}: is no file of decisions (it begins with {line[:60]!r}); name another file")
        self._begun = True
        try:
            record = json.loads(line)
        except ValueError:
            return  # a crash cut it off before anybody was told that it stands
        if not isinstance(record, dict) or ("says" not in record and "format" not in record):
            raise DataError(f"{self.path}: holds a line that is no decision ({line[:60]!r}); name another file")
        if "says" not in record:
            check_json("decisions", record, origin=self.path)
            return
        images, of = record.get("images", []), record.get("of")
        fits = record["says"] in get_args(Said) and isinstance(images, list) and all(isinstance(each, str) for each in images)
        if not fits or not (of is None or isinstance(of, int)):
            raise DataError(f"{self.path}: holds a line that is no decision ({line[:60]!r}); name another file")
        self.decisions.append(Decision(len(self.decisions) + 1, record["says"], tuple(images), of, str(record.get("who", ""))))

    def _locked(self) -> _Lock:
        return _Lock(self._file.fileno())


class _Lock:
    """The file's lock, among processes and among the openings of one process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
