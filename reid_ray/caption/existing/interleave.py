"""Originals and their rewrites as one table: a merge of two ordered streams, each original followed by its rewrites.

Knows row numbers and order numbers; holds a batch of originals and a bucket of rewrites at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from reid_ray.caption.ledger.publish import ORDER
from reid_ray.caption.ledger.write_ahead_log import LEDGER
from reid_ray.caption.rows import STAGED
from reid_ray.records import IDENTITY_COLUMNS, conform

# What a rewrite says of the image is what its original says now.
_OF_THE_ORIGINAL = ("image_id", "image_sha256", "captioner", *IDENTITY_COLUMNS)
_ORDERED = pa.schema([*LEDGER, ORDER])


def interleaved(originals: Iterator[tuple[np.ndarray, pa.Table]], rewrites: Iterator[pa.Table], *, count: int) -> Iterator[pa.Table]:
    """STAGED tables in order.

    Args:
        originals: (row numbers, ascending, CAPTIONS rows), table by table.
        rewrites: LEDGER rows with ORDER, ascending: `count` times the row number of the original, and the number of the rewrite.
        count: rewrites per original at most.
    """
    stream = _Stream(rewrites)
    for number_R, table in originals:
        if not len(number_R):
            continue
        made = stream.below((int(number_R[-1]) + 1) * count)
        order = made["order"].to_numpy()
        parent = pa.array(np.searchsorted(number_R, order // count))
        staged = made.select(STAGED.names)
        for name in _OF_THE_ORIGINAL:
            staged = staged.set_column(STAGED.get_field_index(name), STAGED.field(name), table[name].take(parent))
        whole = pa.concat_tables([conform(table, STAGED, origin="captions"), staged.cast(STAGED)])
        place = np.concatenate([number_R * (count + 1), order + order // count + 1])
        yield whole.take(pa.array(np.argsort(place, kind="stable")))


class _Stream:
    """An ordered stream of tables that is read as far as somebody asks."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables, self._waiting = tables, _ORDERED.empty_table()

    def below(self, order: int) -> pa.Table:
        """The next rows, up to the order number `order`, which is left out."""
        parts = [self._waiting]
        while not parts[-1].num_rows or parts[-1]["order"][-1].as_py() < order:
            table = next(self._tables, None)
            if table is None:
                break
            parts.append(table)
        rows = pa.concat_tables(parts)
        stop = int(np.searchsorted(rows["order"].to_numpy(), order))
        self._waiting = rows.slice(stop)
        return rows.slice(0, stop)
