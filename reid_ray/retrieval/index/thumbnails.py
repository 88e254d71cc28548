"""Thumbnail store of a gallery: one JPEG a row in one Parquet file, written as a stream and read by random access.

Knows rows and bytes; not vectors or HTTP. Row groups are small, so that reading one picture touches a few hundred kilobytes of a
file that may be far larger than memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.errors import DataError

FILE = "thumbnails.parquet"
ROWS_PER_GROUP = 64
_GROUPS_HELD = 64  # about 20 MB of JPEGs
_SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("thumbnail", pa.binary(), nullable=False)])


class ThumbnailWriter:
    """Appends thumbnails in row order to `folder`/thumbnails.parquet; a context manager."""

    def __init__(self, folder: Path) -> None:
        # JPEG does not shrink further; compressing it again only costs time.
        self._writer = pq.ParquetWriter(folder / FILE, _SCHEMA, compression="none", use_dictionary=False)
        self._pending = _SCHEMA.empty_table()

    def append(self, image_ids: pa.ChunkedArray, thumbnails: pa.ChunkedArray) -> None:
        """Add one JPEG per image id."""
        table = pa.table([image_ids, thumbnails], schema=_SCHEMA)
        self._pending = pa.concat_tables([self._pending, table])
        whole = self._pending.num_rows // ROWS_PER_GROUP * ROWS_PER_GROUP
        if whole:
            self._writer.write_table(self._pending.slice(0, whole), row_group_size=ROWS_PER_GROUP)
            self._pending = self._pending.slice(whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pending.num_rows:
            self._writer.write_table(self._pending, row_group_size=ROWS_PER_GROUP)
        self._writer.close()


class ThumbnailReader:
    """Thumbnails by row; may be called from several threads.

    Raises:
        DataError: the folder holds no readable thumbnails.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder) / FILE
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: holds no readable thumbnails ({error}); run the index job again") from None
        self._groups: OrderedDict[int, list[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def __getitem__(self, row: int) -> bytes:
        """JPEG bytes of a row; IndexError beyond the last."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} thumbnails")
        group, offset = divmod(row, ROWS_PER_GROUP)
        with self._lock:
            if group not in self._groups:
                self._groups[group] = self._file.read_row_group(group, columns=["thumbnail"])["thumbnail"].to_pylist()
                if len(self._groups) > _GROUPS_HELD:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(group)
            return self._groups[group][offset]

    def named(self, name: str) -> bytes | None:
        """JPEG bytes of the row that a hit's `thumbnail` names; None where there is none."""
        return self[int(name)] if name.isascii() and name.isdecimal() and len(name) < 16 and int(name) < len(self) else None
