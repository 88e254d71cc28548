"""An add job on the disk: what was uploaded, what is to become of it, and how far it is; files appear whole or not at all.

    jobs/ID/status.json     JobStatus, replaced after every batch
    jobs/ID/rows.json       of pictures: each one's place in the upload, id and columns
    jobs/ID/upload          pictures one after the other, or a Parquet table
    jobs/ID/cancel          somebody asked for its end
    jobs/.ID.lock           held by the process that works on it
    jobs/.new-...           an upload that is not whole

Uploads go when a job ends, however it ends. Knows files; not galleries, encoders or who asks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from reid_ray.errors import DataError
from reid_ray.storage.files import read_object, write_durably, write_json
from reid_ray.versions import check_json, numbered

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]
JobKind = Literal["pictures", "table", "compact"]
_STATUS, _ROWS, _UPLOAD, _CANCEL = "status.json", "rows.json", "upload", "cancel"
_REFUSED_KEPT = 1_000
_REMEDY = "the job cannot go on; remove its folder, and add what it held again"


class UploadGoneError(DataError):
    """What a job was given is not there (any more): the job has ended, or somebody removed it."""


@dataclass
class JobStatus:
    """How far a job is. Times are seconds since 1970.

    total: rows or pictures that were given, None until a table was opened; done: of those, worked through.
    refused: the first thousand of those that are no items: file, item_id and reason; refused_count has all.
    begun_at, waiting_erasures: the gallery's generation and its erasures when it was asked for, as ErasuresBefore has them; what is
        erased later is not added. Statuses of number 1 know of none: what waited then counts as later.
    attempts: how often it was begun; more than once where the service was killed.
    """

    job_id: str
    kind: JobKind
    by: str
    created: float
    begun_at: int
    captioned: bool = False
    state: JobState = "waiting"
    total: int | None = None
    done: int = 0
    added: int = 0
    refused_count: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)
    uncaptioned: int = 0
    started: float | None = None
    ended: float | None = None
    generation: int | None = None
    detail: str | None = None
    attempts: int = 0
    waiting_erasures: list[str] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("done", "failed", "cancelled")

    def refuse(self, refused: Sequence[tuple[str, str, str]]) -> None:
        """Count rows that are no items: (file, item_id, reason)."""
        self.refused_count += len(refused)
        room = max(_REFUSED_KEPT - len(self.refused), 0)
        self.refused += [{"file": file, "item_id": item_id, "reason": reason} for file, item_id, reason in refused[:room]]


@dataclass
class UploadedPicture:
    """A picture of an upload: `start` and `size` are bytes of it."""

    file: str
    start: int
    size: int
    item_id: str
    columns: dict[str, Any]


class JobFolder:
    """One job's files.

    Args:
        path: jobs/ID.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def upload(self) -> Path:
        """What was uploaded."""
        return self.path / _UPLOAD

    def status(self) -> JobStatus:
        """How far it is.

        Raises:
            FileNotFoundError: there is no such job.
            DataError: its status cannot be read.
        """
        path = self.path / _STATUS
        try:
            found = read_object(path, remedy=_REMEDY)
        except DataError:
            if path.is_file():
                raise
            raise FileNotFoundError(path) from None
        check_json("service_job", found, origin=path)
        known = {name: found[name] for name in JobStatus.__dataclass_fields__ if name in found}
        try:
            status = JobStatus(**known)
        except TypeError as error:
            raise DataError(f"{path}: is no status of a job ({error}); {_REMEDY}") from None
        if status.state not in get_args(JobState):
            raise DataError(f"{path}: has the state {status.state!r}, which is none; {_REMEDY}")
        return status

    def write_status(self, status: JobStatus) -> None:
        """Replace it."""
        write_json(self.path / _STATUS, {**numbered("service_job"), **asdict(status)})

    def rows(self) -> list[UploadedPicture]:
        """The pictures of the upload, in order.

        Raises:
            UploadGoneError: there are none (any more).
            DataError: they cannot be read.
        """
        try:
            found = read_object(self.path / _ROWS, remedy=_REMEDY)
        except DataError:
            if (self.path / _ROWS).is_file():
                raise
            raise UploadGoneError(f"{self.path / _ROWS}: is not there; {_REMEDY}") from None
        try:
            return [UploadedPicture(**row) for row in found["rows"]]
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.path / _ROWS}: is no list of pictures ({error}); {_REMEDY}") from None

    def write_rows(self, rows: Sequence[UploadedPicture]) -> None:
        """Replace them, durably."""
        data = json.dumps({"rows": [asdict(row) for row in rows]}, ensure_ascii=True).encode()
        write_durably(self.path / _ROWS, lambda hidden: hidden.write_bytes(data))

    def ask_to_cancel(self) -> None:
        """Whoever works on it ends it after its batch."""
        (self.path / _CANCEL).touch()

    @property
    def is_to_be_cancelled(self) -> bool:
        """Whether somebody asked for that."""
        return (self.path / _CANCEL).exists()

    def drop_upload(self) -> None:
        """Remove all but the status: nothing of what was uploaded stays."""
        self._drop_all_but((_STATUS,))

    def drop_made(self) -> None:
        """Remove what was made of the upload: pictures and captions in tables."""
        self._drop_all_but((_STATUS, _ROWS, _UPLOAD, _CANCEL))

    def _drop_all_but(self, names: Sequence[str]) -> None:
        with suppress(FileNotFoundError):
            for entry in list(self.path.iterdir()):
                if entry.name in names or entry.name.startswith(f".{_STATUS}."):  # a status that is being written beside us
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    with suppress(FileNotFoundError):  # another process drops it, too
                        shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
