"""Some rows of a table as Python values, read without what Arrow does for a whole column: a search wants twenty rows, and often.

Numbers and texts without nulls, as nearly all columns of a gallery are, are read from Arrow's own memory; whatever else there is, by Arrow.
Knows tables; not galleries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

_FEW = 64  # rows, whose values Arrow reads one by one: in a process that does other things between, a take costs more

_Read = Callable[[Sequence[int]], list[Any]]


class RowReader:
    """Rows of a table that does not change; threads may share it.

    Attributes:
        rows: the table.
    """

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self._columns: dict[str, _Read] = {}

    def dicts(self, numbers: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        """Some rows as {column: value} of these columns, None of those that the table lacks."""
        columns = [(self._columns.get(name) or self._column(name))(numbers) for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def _column(self, name: str) -> _Read:
        read = _reading(self.rows[name]) if name in self.rows.column_names else lambda numbers: [None] * len(numbers)
        self._columns[name] = read
        return read


def _reading(column: pa.ChunkedArray) -> _Read:
    if column.num_chunks == 1 and column.null_count == 0 and len(column):
        array = column.chunk(0)
        if pa.types.is_int64(array.type) or pa.types.is_float64(array.type):
            return _numbers(array)
        if pa.types.is_string(array.type):
            return _texts(array)

    def read(numbers: Sequence[int]) -> list[Any]:
        if len(numbers) <= _FEW and column.num_chunks == 1:
            array = column.chunk(0)
            return [array[number].as_py() for number in numbers]
        return column.take(pa.array(numbers, pa.int64())).to_pylist()

    return read


def _numbers(array: pa.Array) -> _Read:
    value_N = array.to_numpy(zero_copy_only=True)
    return lambda numbers: value_N[numbers].tolist()


def _texts(array: pa.StringArray) -> _Read:
    _, ends, letters = array.buffers()
    # Where each text begins, and at last where the last one ends.
    start_N = np.frombuffer(ends, np.int32, len(array) + 1, 4 * array.offset)
    utf8 = memoryview(b"" if letters is None else letters)

    def read(numbers: Sequence[int]) -> list[Any]:
        row_M = np.asarray(numbers, np.int64)
        spans = zip(start_N[row_M].tolist(), start_N[row_M + 1].tolist(), strict=True)
        return [str(utf8[start:stop], "utf-8") for start, stop in spans]

    return read
