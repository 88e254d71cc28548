"""Which rows of the embed job's tables a gallery takes, as items, and why it leaves the others out.

Knows columns and reasons; not files, segments or Ray.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.gallery.items import ID, VECTOR, Items, are_unit, checked_items
from reid_ray.retrieval.embed_stream import ENCODER

# Columns that say how a row was made; they describe no item.
NOT_METADATA = frozenset({"kind", "status", "reason", "text", ENCODER.name})
_NEEDED = (ID, VECTOR, "kind", "status", ENCODER.name)


def refuse_other_tables(names: list[str], origin: str) -> None:
    """Refuse what the embed job did not write.

    Raises:
        DataError: a column is missing; names it.
    """
    for name in _NEEDED:
        if name not in names:
            raise DataError(f"{origin}: has no column {name}; give tables that the embed job wrote")


def why_left_out(table: pa.Table, *, dim: int, include_synthetic: bool) -> np.ndarray:
    """For each row why it is no item, as a reason of a failed row; None for those that are. Object [N].

    Args:
        table: rows of the embed job's tables, pictures not needed.
        dim: of the gallery.
        include_synthetic: take pictures that an editor made.
    """
    why = np.full(table.num_rows, None, object)
    vector_N = _unit_vectors(table[VECTOR], dim)
    why[~vector_N] = f"not_unit: the vector is missing, not of dimension {dim} or not of length 1"
    why[_holds(pc.fill_null(pc.equal(table[ID].cast(pa.string()), ""), True))] = (
        "no_id: an item's id is its identity, and must not be empty"
    )
    if not include_synthetic and "synthetic" in table.column_names and not pa.types.is_null(table.schema.field("synthetic").type):
        why[_holds(table["synthetic"])] = "synthetic: an editor made the picture, and include_synthetic is false"
    why[_holds(pc.equal(table["kind"], "text"))] = "is_a_text: a gallery holds pictures"
    failed = np.flatnonzero(_holds(pc.equal(table["status"], "failed")))
    if len(failed):
        said = table["reason"].take(pa.array(failed)).to_pylist() if "reason" in table.column_names else [None] * len(failed)
        why[failed] = [reason or "failed: the embed job does not say why" for reason in said]
    return why


def last_of_each(ids: Sequence[str]) -> np.ndarray:
    """Which rows are the last of their id: bool [N]."""
    place = {each: at for at, each in enumerate(ids)}
    last_N = np.zeros(len(ids), np.bool_)
    last_N[list(place.values())] = True
    return last_N


def one_encoder(table: pa.Table, origin: str) -> str:
    """The fingerprint of what made a table's vectors.

    Raises:
        DataError: there are several, or it is not named.
    """
    found = pc.unique(table[ENCODER.name]).to_pylist()
    if len(found) != 1 or found[0] is None:
        raise DataError(f"{origin}: has vectors of several encoders, or of one that it does not name; embed with one encoder")
    return str(found[0])


def refuse_another_encoder(table: pa.Table, encoder: str, origin: str) -> None:
    """Refuse vectors of another encoder than the gallery's.

    Raises:
        DataError: names both.
    """
    if table.num_rows and (found := one_encoder(table, origin)) != encoder:
        raise DataError(f"{origin}: has vectors of encoder {found}, but the gallery is of {encoder}; embed with one encoder")


def items_of(table: pa.Table, *, origin: str, dim: int, now: float | None = None) -> Items:
    """Rows that a gallery takes, as its items."""
    return checked_items(item_columns(table), origin=origin, dim=dim, now=now)


def item_columns(table: pa.Table) -> pa.Table:
    """The columns of a table that describe items."""
    return table.select([name for name in table.column_names if name not in NOT_METADATA])


def item_schema(schema: pa.Schema, *, origin: str, dim: int) -> pa.Schema:
    """The gallery's columns for a table of a schema.

    Raises:
        DataError: a column cannot be stored.
    """
    return items_of(schema.empty_table(), origin=origin, dim=dim).rows.schema


def _unit_vectors(column: pa.ChunkedArray, dim: int) -> np.ndarray:
    array = column.combine_chunks()
    fits = _holds(pc.equal(pc.list_value_length(array), dim))
    vectors = array.filter(pa.array(fits)).flatten().to_numpy(zero_copy_only=False)
    fits[fits] = are_unit(np.asarray(vectors, np.float32).reshape(-1, dim))
    return fits


def _holds(truth: pa.ChunkedArray | pa.Array) -> np.ndarray:
    found: np.ndarray = (
        pc.fill_null(truth, False).to_numpy(zero_copy_only=False)
        if isinstance(truth, pa.Array)
        else np.concatenate([np.zeros(0, np.bool_), *(pc.fill_null(each, False).to_numpy(zero_copy_only=False) for each in truth.chunks)])
    )
    return found.astype(np.bool_)
