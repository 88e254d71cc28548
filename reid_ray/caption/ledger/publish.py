"""Publishing: the ledger's rows -> the output's CAPTIONS table, deduplicated and sorted in the images' order by an external bucket sort.

Knows keys and order numbers; makes nothing. Rows lie in the ledger as they were finished. They are put in order bucket by bucket, so
that memory holds one bucket's texts and 24 bytes for each row of the result, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.caption.ledger.ledger_files import read_ledger_file
from reid_ray.caption.ledger.missing import CachedListing, PassPlan
from reid_ray.caption.ledger.write_ahead_log import Ledger, as_keys, find
from reid_ray.caption.rows import STAGED
from reid_ray.data.labels.own_rows import OwnByPlace
from reid_ray.errors import DataError
from reid_ray.own_columns import with_own
from reid_ray.records import IDENTITY_COLUMNS

_BUCKET_ROWS = 200_000
ORDER = pa.field("order", pa.int64())


def published_rows(
    ledger: Ledger, view: CachedListing, wanted: PassPlan, *, stride: int, captioner: str, own: OwnByPlace | None = None
) -> Iterator[pa.Table]:
    """A captioner's pass as STAGED tables in order, with the images' own columns after them, if they are carried.

    The identity columns are taken from the images as they are listed now, and `image_outcome` from the rows of the result.

    Args:
        ledger: holds every row that `wanted` names.
        view: of the images.
        wanted: the pass, done.
        stride: order numbers per image.
        captioner: its name in the configuration now.
        own: columns of a user's own of the same listing.

    Raises:
        DataError: a wanted row is not there.
    """
    rows = ordered_rows(ledger, wanted.result_key, wanted.result_order, groups=len(view.row_N), stride=stride)
    for table in rows:
        yield _described(table, view, stride, captioner, own)


def ordered_rows(
    ledger: Ledger, keys: np.ndarray, orders: np.ndarray, *, groups: int, stride: int, bucket_rows: int | None = None
) -> Iterator[pa.Table]:
    """The ledger's rows under `keys` as tables with a column ORDER, in the order of `orders`, one row each.

    Args:
        ledger: holds a row under each key.
        keys: of KEYS; one that stands twice counts where it stands first.
        orders: order number of each key, below groups * stride.
        groups: how many groups of order numbers there are; a group is never divided between two tables.
        stride: order numbers per group.
        bucket_rows: rows that are held in memory together, about; None suits rows of text.

    Raises:
        DataError: a row is not there.
    """
    keys, first = np.unique(keys, return_index=True)  # a name that is listed twice with the same content is one
    orders = orders[first]
    buckets = max(1, -(-len(keys) // (bucket_rows or _BUCKET_ROWS)))
    span = max(1, -(-groups // buckets)) * stride
    with ledger.files.spill() as spill:
        _fill(ledger, spill, keys=keys, orders=orders, span=span, buckets=buckets)
        for bucket in range(buckets):
            expected = int(((orders >= bucket * span) & (orders < (bucket + 1) * span)).sum())
            if expected:
                yield _in_order(_bucket_file(spill, bucket), expected, origin=ledger.files.location)


def _fill(ledger: Ledger, spill: Path, *, keys: np.ndarray, orders: np.ndarray, span: int, buckets: int) -> None:
    schema = pa.schema([*ledger.form.schema, ORDER])
    with ExitStack() as stack:
        writers = [stack.enter_context(pq.ParquetWriter(_bucket_file(spill, bucket), schema)) for bucket in range(buckets)]
        for file in ledger.row_files():
            table = read_ledger_file(file, schema=ledger.form.schema)
            at = find(as_keys(table["key"]), keys)
            table = table.filter(pa.array(at >= 0))
            order = orders[at[at >= 0]]
            table = table.append_column(ORDER, pa.array(order))
            for bucket in np.unique(order // span).tolist():
                writers[bucket].write_table(table.filter(pa.array(order // span == bucket)))


def _bucket_file(spill: Path, bucket: int) -> Path:
    return spill / f"{bucket}.parquet"


def _in_order(file: Path, expected: int, *, origin: str) -> pa.Table:
    table = pq.read_table(file)
    failed = pc.equal(table["status"], "failed")
    # One row per order number: a text before a failure, then the one that was there first, on which rewrites may rest.
    table = table.append_column("_failed", failed).sort_by([("order", "ascending"), ("_failed", "ascending"), ("made", "ascending")])
    order = table["order"].to_numpy()
    first = np.append(True, order[1:] != order[:-1]) if len(order) else np.empty(0, bool)
    table = table.filter(pa.array(first)).drop_columns(["_failed"])
    if table.num_rows != expected:
        raise DataError(f"{origin}: lacks {expected - table.num_rows} rows that it held before; run the command again")
    return table


def _described(table: pa.Table, view: CachedListing, stride: int, captioner: str, own: OwnByPlace | None) -> pa.Table:
    """A captioner's rows with what their images are called now, and each image's outcome."""
    image = table["order"].to_numpy() // stride
    who = view.cache.table.take(pa.array(view.row_N[image]))
    columns = {name: table[name] for name in STAGED.names} | {name: who[name] for name in IDENTITY_COLUMNS}
    columns["captioner"] = pa.array([captioner] * table.num_rows, pa.string())
    columns["image_outcome"] = pa.array(_outcomes(image, table), pa.string())
    if own is None:
        return pa.table([columns[name] for name in STAGED.names], schema=STAGED)
    told, schema = own.take(image), with_own(STAGED, own.own)
    return pa.table([columns[name] if name in columns else told[name] for name in schema.names], schema=schema)


def _outcomes(image: np.ndarray, table: pa.Table) -> list[str | None]:
    """On each image's first row: ok if any of its captions is, else the code of the last failure."""
    outcomes: list[str | None] = [None] * table.num_rows
    first, position = -1, -1
    for row, (at, kind, status, reason) in enumerate(
        zip(image.tolist(), table["kind"].to_pylist(), table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)
    ):
        if at != position:
            first, position = row, at
        if kind != "rewrite" and outcomes[first] != "ok":
            outcomes[first] = "ok" if status == "ok" else str(reason).split(":")[0]
    return outcomes
