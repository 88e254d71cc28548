"""The columns of a user's own that the files of a Parquet table have, and numbers for its cameras' names. Reads footers and one column."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.own_columns import camera_numbers, merged_own, own_schema
from reid_ray.records import CAPTIONS
from reid_ray.storage.table_files import TableFile, parquet_files

_BATCH_ROWS = 65_536


def own_of_files(files: Sequence[TableFile], schemas: Sequence[pa.Schema], only: Sequence[str] | None) -> pa.Schema:
    """The own columns of a table: each that any of its files has.

    Args:
        files: of the table.
        schemas: of each file.
        only: which are wanted; None takes all.

    Raises:
        DataError: a column cannot be carried, is of two types, or is wanted and in no file.
    """
    there = {name for schema in schemas for name in schema.names}
    found = []
    for number, (file, schema) in enumerate(zip(files, schemas, strict=True)):
        # what no file has is missing of the first one; what some lack is null there
        wanted = None if only is None else [name for name in only if name in schema.names or (number == 0 and name not in there)]
        found.append((str(file), own_schema(schema, origin=str(file), only=wanted)))
    return merged_own(found)


def own_of_captions(location: str) -> pa.Schema:
    """The own columns of a table of captions: those of its images that the caption job carried, or anybody's.

    Raises:
        DataError: a column cannot be carried, or is of two types.
    """
    found = []
    for file in parquet_files(location):
        with file.open() as parquet:
            found.append((str(file), own_schema(parquet.schema_arrow, origin=str(file), base=CAPTIONS)))
    return merged_own(found)


def names_beside(location: str, base: pa.Schema) -> list[str]:
    """The names of the columns of a table that `base` has not: of a job that does not hand them on, whatever they are."""
    found: dict[str, None] = {}
    for file in parquet_files(location):
        with file.open() as parquet:
            found |= dict.fromkeys(name for name in parquet.schema_arrow.names if name not in base.names)
    return list(found)


def cameras_of_files(
    files: Sequence[TableFile], schemas: Sequence[pa.Schema], pool: Executor, *, column: str = "camera"
) -> dict[str, int] | None:
    """Numbers for the names of the cameras, of all rows of all files; None where a file has camera_id, or none has names.

    Args:
        files: of the table.
        schemas: of each file, with names as they are meant.
        pool: reads several files at the same time.
        column: what the files call the column camera.
    """
    if any("camera_id" in schema.names for schema in schemas) or not any("camera" in schema.names for schema in schemas):
        return None
    with_names = [file for file, schema in zip(files, schemas, strict=True) if "camera" in schema.names]
    return camera_numbers(name for names in pool.map(lambda file: _names_in(file, column), with_names) for name in names)


def _names_in(file: TableFile, column: str) -> set[str]:
    names: set[str] = set()
    with file.open() as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=[column]):
            names |= set(pc.unique(batch.column(column).cast(pa.string())).drop_null().to_pylist())
    return names
