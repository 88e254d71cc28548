"""Items in memory that no segment holds yet: what the log says, searchable at once.

Vectors lie in one array that grows by doubling, so that a search sees one block; a search that has begun keeps the array it began with,
and reads its hits' columns while others add. Knows items; not the log or files.
"""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa

from reid_ray.gallery.items import BASE, ID, Items, in_schema, is_filterable
from reid_ray.gallery.sealed.postings import Postings
from reid_ray.gallery.sealed.twins import Twins, row_hashes, same_bytes


class Buffer:
    """Items by row, in the order in which they came.

    Args:
        dim: of the vectors.
    """

    def __init__(self, dim: int) -> None:
        self._vectors = np.empty((64, dim), np.float32)
        self._group_N = np.full(64, -1, np.int32)
        self._first_of: dict[int, int] = {}  # the first row with a hash of its vector
        self._groups = 0
        self._count = 0
        self._rows: list[pa.Table] = []
        self._joining = threading.Lock()  # of _rows: a search reads items while others are added
        self._pictures: list[bytes] = []
        self._row_of: dict[str, int] = {}
        self._postings: tuple[int, dict[str, Postings]] = (0, {})

    def __len__(self) -> int:
        return self._count

    @property
    def vectors(self) -> np.ndarray:
        """Float32 [N, D]; what comes later is not in it."""
        return self._vectors[: self._count]

    @property
    def twins(self) -> Twins:
        """Which of them are equal."""
        return Twins(self._group_N[: self._count], self._groups)

    def add(self, items: Items) -> None:
        """Append items. An id that is there already is found at its newest row."""
        stop = self._count + len(items)
        if stop > len(self._vectors):
            grown = np.empty((max(stop, 2 * len(self._vectors)), self._vectors.shape[1]), np.float32)
            grown[: self._count] = self._vectors[: self._count]
            self._vectors = grown
            self._group_N = np.concatenate([self._group_N, np.full(len(grown) - len(self._group_N), -1, np.int32)])
        self._vectors[self._count : stop] = items.vectors
        self._join_twins(stop)
        with self._joining:
            self._rows.append(items.rows)
        self._pictures += items.thumbnails.to_pylist()
        self._row_of.update({each: self._count + at for at, each in enumerate(items.ids())})
        self._count = stop

    def _join_twins(self, stop: int) -> None:
        """Find the twins of the rows from self._count to `stop`."""
        for row, value in enumerate(row_hashes(self._vectors[self._count : stop]).tolist(), self._count):
            first = self._first_of.setdefault(value, row)
            if first != row and same_bytes(self._vectors[row], self._vectors[first]):
                if self._group_N[first] < 0:
                    self._group_N[first] = self._groups
                    self._groups += 1
                self._group_N[row] = self._group_N[first]

    def rows_of(self, ids: list[str]) -> np.ndarray:
        """Newest row of each id, -1 where there is none."""
        return np.array([self._row_of.get(each, -1) for each in ids], np.int64)

    def rows(self) -> pa.Table:
        """All items' columns."""
        with self._joining:
            if len(self._rows) != 1:
                schema = pa.unify_schemas([each.schema for each in self._rows]) if self._rows else BASE
                tables = [in_schema(each, schema) for each in self._rows]
                self._rows = [pa.concat_tables(tables).combine_chunks() if tables else BASE.empty_table()]
            return self._rows[0]

    def postings(self) -> dict[str, Postings]:
        """Posting lists of the columns that can be filtered, but of the ids."""
        count, known = self._postings
        if count != self._count:
            rows = self.rows()
            columns = [each.name for each in rows.schema if is_filterable(each) and each.name != ID]
            known = {name: Postings.of(rows[name].combine_chunks()) for name in columns}
            self._postings = (rows.num_rows, known)
        return known

    def thumbnail(self, row: int) -> bytes:
        """The encoded picture of a row."""
        return self._pictures[row]

    def id_at(self, row: int) -> str:
        """The id of a row."""
        found: str = self.rows()[ID][row].as_py()
        return found

    def items(self, rows: np.ndarray) -> Items:
        """Some of the items."""
        pictures = pa.array([self._pictures[int(row)] for row in rows], pa.large_binary())
        return Items(self._vectors[rows], self.rows().take(pa.array(rows)).combine_chunks(), pictures)
