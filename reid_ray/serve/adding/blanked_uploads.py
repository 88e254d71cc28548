"""Uploads of jobs that wait, when somebody whom they hold is erased: what they hold of them is overwritten, and the rest stays as it was.

Knows pictures one after the other and tables; not which jobs wait.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.errors import DataError
from reid_ray.gallery.items import ID
from reid_ray.serve.adding.job_folder import JobFolder, JobStatus
from reid_ray.storage.files import replacing


def blank(folder: JobFolder, status: JobStatus, wanted: set[str]) -> None:
    """Overwrite what an upload holds of some items."""
    if status.kind == "pictures":
        with folder.upload.open("r+b") as file:
            for row in folder.rows():
                if row.item_id in wanted:
                    file.seek(row.start)
                    file.write(bytes(row.size))
            file.flush()
            os.fsync(file.fileno())
    elif status.kind == "table":
        with pq.ParquetFile(folder.upload) as old, replacing(folder.upload) as hidden, pq.ParquetWriter(hidden, _nullable(old)) as new:
            for batch in old.iter_batches(1_024):
                new.write_table(_blanked(pa.Table.from_batches([batch]), list(wanted)).cast(_nullable(old)))
    folder.drop_made()


def _nullable(table: pq.ParquetFile) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in table.schema_arrow], metadata=table.schema_arrow.metadata)


def _blanked(upload: pa.Table, ids: Sequence[str]) -> pa.Table:
    """A table of an upload without those items: their rows are there, and hold nothing."""
    name = ID if ID in upload.column_names else "image_id"
    if name not in upload.column_names:
        raise DataError("table: has no ids")
    wanted = set(ids)
    kept = pa.array([None if each in wanted else at for at, each in enumerate(upload[name].to_pylist())], pa.int64())
    return upload.take(kept)
