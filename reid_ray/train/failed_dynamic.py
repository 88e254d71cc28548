"""Stand-ins: where a dynamic caption failed, the static caption of the same image by the same captioner trains in its place, too.

As in the code of LUPerson-MLLM (Tan et al., CVPR 2024), an image keeps as many samples. A captioner that was asked for dynamic captions
alone has a static one only where its dynamic one failed: that is the replacement already, and trains once. Tables stream twice beforehand:
for the failed captions, then for the static ones. What is held is some 30 bytes for each. Knows CAPTIONS tables; not images or samples.
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

# What both captions of a captioner have in common, the image aside. A run draws one of each kind for an image, and two runs differ in one.
_CAPTIONER = ["captioner", "model", "revision", "seed"]
_KEY = ["image_id", *_CAPTIONER]
STAND_IN_COLUMNS = [*_KEY, "caption_id", "kind", "status"]
MARK = " (stand-in)"  # at the end of a stand-in's caption_id
_READ_ROWS = 131_072


def _none() -> np.ndarray:
    return np.zeros(0, np.uint64)


@dataclass(frozen=True)
class StandIns:
    """Which failed dynamic captions have a stand-in, and which static ones are that: hashes of rows, ascending, as many of each.

    Of several of a kind by one captioner for an image one is chosen, by its hash, so that it matters nothing how the rows are batched.
    """

    failed_K: np.ndarray = field(default_factory=_none)
    static_K: np.ndarray = field(default_factory=_none)

    def applied(self, table: pa.Table) -> pa.Table:
        """The table without the failed captions that have a stand-in, and behind it the stand-ins of its static ones, as dynamic ones.

        Args:
            table: of CAPTIONS, with STAND_IN_COLUMNS at least; some rows of those that were searched.
        """
        if not len(self.failed_K) or not table.num_rows:
            return table
        failed, static = _failed(table), _usable_static(table)
        for rows, chosen_K in ((failed, self.failed_K), (static, self.static_K)):
            rows[rows] = _holds(chosen_K, _hashed(table.filter(pa.array(rows)), _ROW))
        copies = table.filter(pa.array(static))
        for name, value in (
            ("kind", pa.array(["dynamic"] * copies.num_rows, pa.string())),
            ("caption_id", pc.binary_join_element_wise(copies["caption_id"], MARK, "")),
        ):
            copies = copies.set_column(copies.schema.get_field_index(name), table.schema.field(name), value)
        return pa.concat_tables([table.filter(pa.array(~failed)), copies])


def find_stand_ins(paths: Sequence[str], *, kinds: Sequence[str]) -> StandIns:
    """What stands in for the failed dynamic captions of CAPTIONS tables; nothing where `kinds` are without dynamic ones."""
    if "dynamic" not in kinds:
        return StandIns()
    failed = _one_of_each(_Rows.of(table.filter(pa.array(_failed(table)))) for table in _tables(paths))
    if not len(failed.key_N):
        return StandIns()
    asked = [_none()]  # captioners with a static caption where no dynamic one failed: they were asked for both

    def found() -> Iterator[_Rows]:
        for table in _tables(paths):
            rows = _Rows.of(table.filter(pa.array(_usable_static(table))))
            stands = _holds(failed.key_N, rows.key_N)
            asked.append(np.unique(rows.captioner_N[~stands]))
            yield rows.where(stands)

    static = _one_of_each(found())
    if "static" in kinds:
        static = static.where(np.isin(static.captioner_N, np.concatenate(asked)))
    return StandIns(np.sort(failed.where(np.isin(failed.key_N, static.key_N)).row_N), np.sort(static.row_N))


def count_stand_ins(caption_ids: pa.Array | pa.ChunkedArray) -> int:
    """How many of these captions are stand-ins."""
    return int(pc.sum(pc.ends_with(caption_ids, MARK)).as_py() or 0)


def _tables(paths: Sequence[str]) -> Iterator[pa.Table]:
    for path in paths:
        yield from iter_table(path, CAPTIONS, columns=STAND_IN_COLUMNS, batch_rows=_READ_ROWS)


_ROW = [*_KEY, "caption_id"]


@dataclass(frozen=True)
class _Rows:
    """Rows by the hashes of what they share with their counterpart, of themselves and of who wrote them."""

    key_N: np.ndarray
    row_N: np.ndarray
    captioner_N: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> _Rows:
        return cls(*(_hashed(table, names) for names in (_KEY, _ROW, _CAPTIONER)))

    def where(self, chosen: np.ndarray) -> _Rows:
        return _Rows(self.key_N[chosen], self.row_N[chosen], self.captioner_N[chosen])


def _one_of_each(parts: Iterator[_Rows]) -> _Rows:
    """Of the rows of a key the one of the smallest hash; keys ascending."""
    told = [(rows.key_N, rows.row_N, rows.captioner_N) for rows in parts]
    rows = _Rows(*(np.concatenate([_none(), *column]) for column in zip(*told, strict=True))) if told else _Rows(*([_none()] * 3))
    rows = rows.where(np.lexsort((rows.row_N, rows.key_N)))
    return rows.where(np.unique(rows.key_N, return_index=True)[1])


def _holds(sorted_K: np.ndarray, hash_R: np.ndarray) -> np.ndarray:
    if not len(sorted_K):
        return np.zeros(len(hash_R), bool)
    place_R = np.minimum(np.searchsorted(sorted_K, hash_R), len(sorted_K) - 1)
    held: np.ndarray = sorted_K[place_R] == hash_R
    return held


def _failed(table: pa.Table) -> np.ndarray:
    return _both(table, "dynamic", "failed")


def _usable_static(table: pa.Table) -> np.ndarray:
    return _both(table, "static", "ok")


def _both(table: pa.Table, kind: str, status: str) -> np.ndarray:
    both: np.ndarray = pc.and_(pc.equal(table["kind"], kind), pc.equal(table["status"], status)).to_numpy().copy()
    return both


def _hashed(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """A 64-bit hash of each row's values in these columns, uint64."""
    parts = [pc.fill_null(table[name].cast(pa.string()), "\0") for name in names]
    return hashes(pc.binary_join_element_wise(*parts, "\0"))
