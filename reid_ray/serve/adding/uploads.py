"""Receiving an upload: pictures one after the other into one file, or a table, below the job's hidden folder, until it is whole and right.

What is wrong with it as a whole is refused here, in a sentence; a picture that cannot be decoded is found by the job. Knows files, ids and
columns; not HTTP or encoders.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.errors import ConfigError, DataError, reason_of
from reid_ray.gallery.items import merged_schema
from reid_ray.retrieval.index.taken_rows import item_schema, refuse_other_tables
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.item_rows import ColumnTypes, picture_columns
from reid_ray.serve.adding.job_folder import JobFolder, JobStatus, UploadedPicture
from reid_ray.storage.files import sync

NEW = ".new-"
_ID_CHARS = 500
_YOUNG_S, _LASTS_S = 10.0, 86_400.0


class TooLargeError(ConfigError):
    """An upload has more bytes or files than a job may have."""


class Upload:
    """An upload on its way: `begin_file`, `write`, ..., then `finish_pictures` or `finish_table`; or `discard`.

    Args:
        jobs: the folder of all jobs.
        config: how much may come.

    Attributes:
        item_ids: of the pictures, once they are finished.
    """

    def __init__(self, jobs: Path, config: AddingConfig) -> None:
        self._jobs, self._config = jobs, config
        self._folder = JobFolder(jobs / f"{NEW}{uuid.uuid4().hex}")
        self._folder.path.mkdir(mode=0o700)
        self._file: BinaryIO = self._folder.upload.open("xb")
        with suppress(OSError):  # a file system without it: such uploads are removed by their age
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._starts: list[tuple[str, int]] = []
        self._digests: list[Any] = []
        self._bytes = 0
        self.item_ids: list[str] = []

    def begin_file(self, name: str) -> None:
        """What is written next is a file of this name.

        Raises:
            TooLargeError: too many files.
        """
        if len(self._starts) >= self._config.most_files:
            raise TooLargeError(f"the upload has more than {self._config.most_files:,} files; send a table, or several jobs")
        self._starts.append((name, self._bytes))
        self._digests.append(hashlib.sha256())

    def write(self, data: bytes) -> None:
        """Take some bytes of the file.

        Raises:
            TooLargeError: too many.
        """
        self._bytes += len(data)
        if self._bytes > self._config.most_mb << 20:
            raise TooLargeError(f"the upload is larger than {self._config.most_mb:,} MiB; send several jobs")
        self._file.write(data)
        self._digests[-1].update(data)

    def finish_pictures(self, status: JobStatus, items: Sequence[Mapping[str, Any]] | None, schema: pa.Schema) -> JobStatus:
        """The upload is whole: make it a job, or find the one that it is already.

        Args:
            status: of the new job; its id.
            items: {file, item_id?, column: value}; None takes every file without columns.
            schema: the gallery's columns.

        Raises:
            ConfigError: items or columns that cannot be taken; names file and field.
        """
        if not self._starts:
            raise ConfigError("image: the upload holds no picture; send files in fields named image")
        rows = _rows(self._starts, [each.hexdigest()[:32] for each in self._digests], self._bytes, items)
        ColumnTypes.of([(row.file, row.columns) for row in rows], schema)  # refuses what cannot be stored
        status.total, self.item_ids = len(rows), [row.item_id for row in rows]
        return self._kept(status, rows)

    def finish_table(self, status: JobStatus, *, schema: pa.Schema, dim: int) -> JobStatus:
        """The same, of a Parquet table of embedded rows or of pictures.

        Raises:
            DataError: it is no such table, or a column cannot be stored.
        """
        if len(self._starts) != 1:
            raise ConfigError("table: send one Parquet file")
        self._file.flush()
        try:
            with pq.ParquetFile(self._folder.upload) as parquet:
                columns, status.total = parquet.schema_arrow, parquet.metadata.num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"table: cannot be read as Parquet ({reason_of(error)}); send what the embed or ingest job wrote") from None
        refuse_unfit_table(columns, schema, dim=dim)
        if status.captioned and "embedding" in columns.names:
            raise ConfigError("caption: the table holds vectors, not pictures; send a table of pictures to have them captioned")
        return self._kept(status, None)

    def discard(self) -> None:
        """Nothing of it stays."""
        self._file.close()
        shutil.rmtree(self._folder.path, ignore_errors=True)

    def _kept(self, status: JobStatus, rows: Sequence[UploadedPicture] | None) -> JobStatus:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if rows is not None:
            self._folder.write_rows(rows)
        self._folder.write_status(status)
        place = self._jobs / status.job_id
        try:
            self._folder.path.rename(place)
        except OSError:  # this very request was made before
            if not place.is_dir():
                raise
            self.discard()
            return JobFolder(place).status()
        sync(self._jobs)
        return status


def uploads_on_their_way(jobs: Path) -> int:
    """How many uploads are being received; those whose process is gone are removed."""
    count = 0
    for entry in [each for each in os.scandir(jobs) if each.name.startswith(NEW)]:
        with suppress(FileNotFoundError):  # it has become a job, or was refused
            if time.time() - entry.stat().st_mtime > _YOUNG_S and _is_given_up(Path(entry.path) / "upload"):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                count += 1
    return count


def _is_given_up(upload: Path) -> bool:
    try:
        with upload.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    except OSError:
        return time.time() - upload.stat().st_mtime > _LASTS_S


def refuse_unfit_table(columns: pa.Schema, schema: pa.Schema, *, dim: int) -> None:
    """Refuse a table whose columns the gallery cannot take.

    Raises:
        DataError: names the column.
    """
    if "embedding" in columns.names:
        refuse_other_tables(columns.names, "table")
        try:
            taken = item_schema(columns, origin="table", dim=dim)
        except (pa.ArrowException, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"table: its columns are not those of the embed job ({reason_of(error)})") from None
        merged_schema(schema, taken, origin="table")
        return
    if "image" not in columns.names or not ({"item_id", "image_id"} & set(columns.names)):
        raise DataError(
            "table: has neither a column embedding, nor columns image and image_id (or item_id); send pictures or embedded rows"
        )
    kind = columns.field("image").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"table: column image is {kind}; it must hold encoded pictures, as bytes")
    merged_schema(schema, picture_columns(columns.empty_table()).schema, origin="table")


def _rows(
    starts: Sequence[tuple[str, int]], digests: Sequence[str], end: int, items: Sequence[Mapping[str, Any]] | None
) -> list[UploadedPicture]:
    places = {name: at for at, (name, _) in enumerate(starts)}
    if len(places) < len(starts):
        twice = next(name for at, (name, _) in enumerate(starts) if places[name] != at)
        raise ConfigError(f"image: two files are named {twice[:100]!r}; give each its own name")
    ends = [start for _, start in starts[1:]] + [end]
    rows = []
    for item in items if items is not None else [{"file": name} for name, _ in starts]:
        columns = dict(item)
        file, item_id = columns.pop("file", None), columns.pop("item_id", None)
        if not isinstance(file, str) or file not in places:
            raise ConfigError(f"items: names the file {str(file)[:100]!r}, which was not uploaded; name the files that are sent")
        at = places[file]
        if item_id is not None and (not isinstance(item_id, str) or not 0 < len(item_id) <= _ID_CHARS or not item_id.isprintable()):
            raise ConfigError(f"items: item_id of {file[:100]!r} must be a text of 1 to {_ID_CHARS} printable characters")
        rows.append(UploadedPicture(file, starts[at][1], ends[at] - starts[at][1], item_id or digests[at], columns))
    _refuse_repeats("the file", [row.file for row in rows])
    _refuse_repeats("item_id", [item["item_id"] for item in items or () if item.get("item_id") is not None])
    return rows


def _refuse_repeats(what: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"items: {what} {name[:100]!r} is there twice; name each once")
        seen.add(name)
