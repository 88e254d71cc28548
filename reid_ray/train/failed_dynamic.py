"""Stand-ins: where a dynamic caption failed, the static caption of the same image by the same captioner trains in its place, too.

As in the code of LUPerson-MLLM (Tan et al., CVPR 2024), an image keeps as many samples. Tables stream twice beforehand: for the keys of
failed captions, then for which have a static one. What is held is 8 bytes for each. Knows CAPTIONS tables; not images or samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.records import CAPTIONS
from reid_ray.storage import iter_table
from reid_ray.train.feed.key_index import hashes

# What both captions of a captioner have in common. A run draws one of each kind for an image, and two runs differ in one of these.
_KEY = ["image_id", "captioner", "model", "revision", "seed"]
STAND_IN_COLUMNS = [*_KEY, "caption_id", "kind", "status"]
MARK = " (stand-in)"  # at the end of a stand-in's caption_id
_READ_ROWS = 131_072


@dataclass(frozen=True)
class StandIns:
    """Keys, ascending, of the images and captioners whose dynamic caption failed and whose static one did not."""

    key_K: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))

    def applied(self, table: pa.Table) -> pa.Table:
        """The table without the failed captions that have a stand-in, and behind it the stand-ins of its static ones, as dynamic ones.

        Where a captioner has several of a kind for an image, one of each is meant: a second failed one stays, to be counted as failed.

        Args:
            table: of CAPTIONS, with STAND_IN_COLUMNS at least.
        """
        if not len(self.key_K) or not table.num_rows:
            return table
        failed, static = _failed(table), _usable_static(table)
        for rows in (failed, static):
            key_R = _keys(table.filter(pa.array(rows)))
            rows[rows] = self._holds(key_R) & _first_of_each(key_R)
        copies = table.filter(pa.array(static))
        for name, value in (
            ("kind", pa.array(["dynamic"] * copies.num_rows, pa.string())),
            ("caption_id", pc.binary_join_element_wise(copies["caption_id"], MARK, "")),
        ):
            copies = copies.set_column(copies.schema.get_field_index(name), table.schema.field(name), value)
        return pa.concat_tables([table.filter(pa.array(~failed)), copies])

    def _holds(self, key_R: np.ndarray) -> np.ndarray:
        place_R = np.minimum(np.searchsorted(self.key_K, key_R), len(self.key_K) - 1)
        return self.key_K[place_R] == key_R


def find_stand_ins(paths: Sequence[str], *, kinds: Sequence[str]) -> StandIns:
    """What stands in for the failed dynamic captions of CAPTIONS tables; nothing where `kinds` are without dynamic ones."""
    if "dynamic" not in kinds:
        return StandIns()
    failed = StandIns(_sorted(_keys(table.filter(pa.array(_failed(table)))) for table in _tables(paths)))
    if not len(failed.key_K):
        return failed

    def found() -> Iterator[np.ndarray]:
        for table in _tables(paths):
            key_R = _keys(table.filter(pa.array(_usable_static(table))))
            yield key_R[failed._holds(key_R)]

    return StandIns(_sorted(found()))


def count_stand_ins(caption_ids: pa.Array | pa.ChunkedArray) -> int:
    """How many of these captions are stand-ins."""
    return int(pc.sum(pc.ends_with(caption_ids, MARK)).as_py() or 0)


def _tables(paths: Sequence[str]) -> Iterator[pa.Table]:
    for path in paths:
        yield from iter_table(path, CAPTIONS, columns=STAND_IN_COLUMNS, batch_rows=_READ_ROWS)


def _sorted(parts: Iterator[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))


def _failed(table: pa.Table) -> np.ndarray:
    return _both(table, "dynamic", "failed")


def _usable_static(table: pa.Table) -> np.ndarray:
    return _both(table, "static", "ok")


def _both(table: pa.Table, kind: str, status: str) -> np.ndarray:
    both: np.ndarray = pc.and_(pc.equal(table["kind"], kind), pc.equal(table["status"], status)).to_numpy().copy()
    return both


def _first_of_each(key_R: np.ndarray) -> np.ndarray:
    first_R = np.zeros(len(key_R), bool)
    first_R[np.unique(key_R, return_index=True)[1]] = True
    return first_R


def _keys(table: pa.Table) -> np.ndarray:
    """A 64-bit hash of each row's key, uint64."""
    parts = [pc.fill_null(table[name].cast(pa.string()), "\0") for name in _KEY]
    return hashes(pc.binary_join_element_wise(*parts, "\0"))
