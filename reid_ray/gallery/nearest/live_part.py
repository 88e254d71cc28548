"""A part of a gallery as it is searched: a sealed segment or the buffer, and which of its rows live."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from reid_ray.gallery.buffer import Buffer
from reid_ray.gallery.items import ID
from reid_ray.gallery.nearest.best_of_parts import CandidateSource, Searched
from reid_ray.gallery.nearest.exact_top import Place
from reid_ray.gallery.row_reader import RowReader
from reid_ray.gallery.sealed.postings import Filter, Postings, passing_rows
from reid_ray.gallery.sealed.segment import Segment


@dataclass
class LivePart:
    """A segment or the buffer.

    alive: bool, at least as long as the source; written by `kill` and `revive` alone.
    """

    source: Segment | Buffer
    alive: np.ndarray
    _living: int | None = field(default=None, repr=False)  # how many; None: to be counted
    _reader: RowReader | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """How many rows live."""
        if self._living is None:
            self._living = int(np.count_nonzero(self.alive[: len(self.source)]))
        return self._living

    def kill(self, row_N: np.ndarray) -> None:
        """Have rows dead; -1 is none."""
        row_N = row_N[row_N >= 0]
        if len(row_N):
            self.alive[row_N], self._living = False, None

    def revive(self, first: int, stop: int) -> None:
        """Have the rows from `first` to before `stop` alive, which may be more than there were."""
        if len(self.alive) < stop:
            grown = np.zeros(max(2 * len(self.alive), stop), np.bool_)
            grown[: len(self.alive)] = self.alive
            self.alive = grown
        self.alive[first:stop], self._living = True, None

    def passing(self, wanted: Filter) -> np.ndarray:
        """Which rows live and pass: bool [N]."""
        passing = self.alive[: len(self.source)].copy()
        if by_column := tuple(condition for condition in wanted if condition.column != ID):
            passing &= passing_rows(by_column, self.postings(), len(passing))
        for condition in wanted:
            if condition.column == ID:
                named, row_N = np.zeros(len(passing), np.bool_), self.rows_of(list(condition.values or ()), condition.hashes)
                named[row_N[(row_N >= 0) & (row_N < len(named))]] = True
                passing &= named
        return passing

    def rows_of(self, ids: list[str], hash_N: np.ndarray) -> np.ndarray:
        """Row of each id, the newest of several, -1 where there is none; living or dead. `hash_N`: their id_hashes."""
        return self.source.rows_of(ids) if isinstance(self.source, Buffer) else self.source.rows_of(ids, hash_N)

    def passing_ids(self, wanted: Filter) -> list[str]:
        """Ids of the rows that live and pass; other rows' columns are not read."""
        row_N = np.flatnonzero(self.passing(wanted))
        if not len(row_N):
            return []
        found: list[str] = self.rows()[ID].take(pa.array(row_N)).to_pylist()
        return found

    def searched(self, passing: np.ndarray, kind: str, device: str | None = None) -> Searched:
        """What a search looks through: exactly where `kind` is flat, or that of an index that the segment lacks.

        What was added to a buffer after `passing` was asked for is not in it.

        Args:
            passing: which rows count.
            kind: of index.
            device: a torch device that compares every vector of a segment, in place of an index; None: none does.
        """
        accelerator: CandidateSource | None = None
        codes = None
        if isinstance(self.source, Segment):
            codes = self.source.codes
            accelerator = self.source.on_device(device) if device is not None else None
            if accelerator is None and kind != "flat":
                accelerator = self.source.accelerator(kind)
        return Searched(Place(self.source.vectors[: len(passing)], passing, self.source.twins, codes), accelerator)

    def postings(self) -> dict[str, Postings]:
        """Its posting lists."""
        return self.source.postings() if isinstance(self.source, Buffer) else self.source.postings

    def rows(self) -> pa.Table:
        """Its items' columns."""
        return self.source.rows() if isinstance(self.source, Buffer) else self.source.rows

    def reader(self) -> RowReader:
        """What reads some of them."""
        rows, reader = self.rows(), self._reader
        if reader is None or reader.rows is not rows:  # a buffer has another table once something was added
            self._reader = reader = RowReader(rows)
        return reader
