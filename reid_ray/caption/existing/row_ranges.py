"""Input splits (shards) of a CAPTIONS table: a row group each, with the number of its first row, streamed in bounded batches.

Knows Parquet files and row numbers; not what is done with a caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from reid_ray.records import CAPTIONS, conform
from reid_ray.storage.table_files import TableFile, parquet_files
from reid_ray.versions import check_table

_BATCH_ROWS = 16_384


@dataclass(frozen=True)
class RowRange:
    """The row group `row_group` of a file, whose rows are first .. first + rows - 1 of the whole table."""

    file: TableFile
    row_group: int
    first: int
    rows: int

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        """(number of the first row, CAPTIONS rows), in order."""
        first = self.first
        with self.file.open() as parquet:
            present = [name for name in CAPTIONS.names if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=[self.row_group], columns=present):
                yield first, conform(pa.Table.from_batches([batch]), CAPTIONS, origin=str(self.file))
                first += batch.num_rows


def row_ranges(path: str) -> list[RowRange]:
    """The table at a path or an address, from its files' footers alone.

    Raises:
        DataError: there is no table, it cannot be read, or a newer version of this package wrote it.
    """
    ranges: list[RowRange] = []
    first = 0
    for file in parquet_files(path):
        with file.open() as parquet:
            check_table(parquet.schema_arrow.metadata, origin=file)
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
        for group, rows in enumerate(sizes):
            if rows:
                ranges.append(RowRange(file, group, first, rows))
                first += rows
    return ranges
