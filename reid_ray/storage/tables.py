"""Parquet tables between jobs: numbered parts written atomically, read in batches, conformed to their schema.

Knows Arrow and Parquet; not what a row means, nor the folder's life (output.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.records import conform
from reid_ray.storage.files import replacing
from reid_ray.storage.table_files import TableFile, parquet_files
from reid_ray.versions import check_table


class TableWriter:
    """Appends Arrow tables of one schema to numbered Parquet parts in a folder.

    A part is written under a hidden name and renamed, so every part a reader sees is whole.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, rows_per_part: int = 50_000) -> None:
        self.rows = 0
        self._folder, self._schema, self._rows_per_part = folder, schema, rows_per_part
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._parts = 0
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, table: pa.Table) -> None:
        """Add rows; columns are conformed to the schema."""
        table = conform(table, self._schema, origin=f"rows for {self._folder}")
        self._pending.append(table)
        self._pending_rows += table.num_rows
        self.rows += table.num_rows
        if self._pending_rows >= self._rows_per_part:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one part. A table without any rows still gets one empty part, so that its schema is on disk."""
        if not self._pending and self._parts:
            return
        table = pa.concat_tables(self._pending) if self._pending else self._schema.empty_table()
        final = self._folder / f"part-{self._parts:05d}.parquet"
        with replacing(final, hidden=final.with_name(f".{final.name}")) as hidden:
            pq.write_table(table, hidden, compression="zstd")
        self._parts += 1
        self._pending, self._pending_rows = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and (self._pending or not self._parts):
            self.flush()


def iter_table(path: str | Path, schema: pa.Schema, *, columns: list[str] | None = None, batch_rows: int = 8192) -> Iterator[pa.Table]:
    """Stream a Parquet table, at a path or an address, in batches conformed to `schema` (or to its `columns`); never held whole."""
    for file in parquet_files(path):
        yield from iter_file(file, schema, columns=columns, batch_rows=batch_rows)


def iter_file(
    file: TableFile, schema: pa.Schema, *, columns: list[str] | None = None, batch_rows: int = 8192, row_group: int | None = None
) -> Iterator[pa.Table]:
    """As iter_table, of one of a table's files, or of one of its row groups."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    with file.open() as parquet:
        check_table(parquet.schema_arrow.metadata, origin=file)
        present = [name for name in wanted.names if name in parquet.schema_arrow.names]
        row_groups = None if row_group is None else [row_group]
        for batch in parquet.iter_batches(batch_size=batch_rows, columns=present, row_groups=row_groups):
            yield conform(pa.Table.from_batches([batch]), wanted, origin=str(file))


def read_table(path: str | Path, schema: pa.Schema, *, columns: list[str] | None = None) -> pa.Table:
    """A whole Parquet table, conformed to `schema` (or to its `columns`)."""
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    batches = list(iter_table(path, schema, columns=columns, batch_rows=65_536))
    return pa.concat_tables(batches) if batches else wanted.empty_table()
