"""Items of a gallery: their fixed columns, and any columns of metadata beside them, as Arrow tables in one growing schema.

An item's identity is its `item_id`, never a row number. Knows columns and types; not files, vectors' search or who asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError

ID, VECTOR, THUMBNAIL, ADDED = "item_id", "embedding", "thumbnail", "added_s"
# Columns that no filter reads: what is shown, not what is searched.
SHOWN_ONLY = frozenset({"caption"})
_RESERVED = frozenset({ID, VECTOR, THUMBNAIL, ADDED})
_FILTERABLE = (pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_boolean, pa.types.is_timestamp)
_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Items:
    """A batch of items.

    vectors: float32 [N, D], unit length.
    rows: N rows: item_id, added_s (seconds since 1970 at which they were added) and metadata.
    thumbnails: N encoded pictures; empty bytes where there is none.
    """

    vectors: np.ndarray
    rows: pa.Table
    thumbnails: pa.BinaryArray | pa.LargeBinaryArray

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def ids(self) -> list[str]:
        """Their identities."""
        found: list[str] = self.rows[ID].to_pylist()
        return found

    def take(self, rows: np.ndarray) -> Items:
        """Some of them, in the order of `rows`."""
        return Items(self.vectors[rows], self.rows.take(pa.array(rows)), self.thumbnails.take(pa.array(rows)))


def checked_items(table: pa.Table, *, origin: str, dim: int | None = None, now: float | None = None) -> Items:
    """A table of items as a batch: item_id, embedding, optionally thumbnail, and metadata.

    Args:
        table: N rows.
        origin: what messages call it.
        dim: of the gallery; None takes what is there.
        now: seconds since 1970 that count as the time of adding; None asks the clock.

    Raises:
        DataError: an id that is missing or repeated, a vector that is not finite, not of unit length or of another dimension, or a
            column that cannot be stored; names origin, item and column.
    """
    for name in (ID, VECTOR):
        if name not in table.column_names:
            raise DataError(f"{origin}: has no column {name}; a gallery takes tables of the embed job, or with columns {ID} and {VECTOR}")
    ids = table[ID].cast(pa.string()).combine_chunks()
    _refuse_bad_ids(ids, origin)
    vectors = _vectors(table[VECTOR], ids, origin, dim)
    added = pa.array(np.full(table.num_rows, time.time() if now is None else now), pa.float64())
    columns: dict[str, pa.Array] = {ID: ids, ADDED: added}
    for name in table.column_names:
        if name not in _RESERVED and not pa.types.is_null(
            table.schema.field(name).type
        ):  # a column of nulls says nothing, not even its type
            columns[name] = _storable(table[name].combine_chunks(), f"{origin}: column {name}")
    return Items(vectors, pa.table(columns), _thumbnails(table))


def merged_schema(known: pa.Schema, rows: pa.Schema, *, origin: str) -> pa.Schema:
    """The gallery's columns with those of new rows.

    Raises:
        DataError: a column has another type there; names both.
    """
    merged = known
    for field in rows:
        at = known.get_field_index(field.name)
        if at < 0:
            merged = merged.append(pa.field(field.name, field.type))
        elif known.field(at).type != field.type:
            raise DataError(
                f"{origin}: column {field.name} is {field.type}, but {known.field(at).type} in the gallery; convert it, or rename it"
            )
    return merged


def in_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` with exactly the columns of `schema`; those that it lacks are null."""
    return pa.table(
        [rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type) for field in schema], schema=schema
    )


def schema_of_json(columns: Mapping[str, str]) -> pa.Schema:
    """A schema from its JSON form {column: type}."""
    return pa.schema([pa.field(name, _TYPES[kind]) for name, kind in columns.items()])


def json_of_schema(schema: pa.Schema) -> dict[str, str]:
    """A schema's JSON form {column: type}."""
    return {field.name: str(field.type) for field in schema}


_TYPES = {str(kind): kind for kind in (pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.timestamp("us"), pa.timestamp("us", "UTC"))}
BASE = pa.schema([pa.field(ID, pa.string()), pa.field(ADDED, pa.float64())])


def _refuse_bad_ids(ids: pa.StringArray, origin: str) -> None:
    if ids.null_count or pc.any(pc.equal(ids, "")).as_py():
        raise DataError(f"{origin}: column {ID} must not be null or empty, for an item's id is its identity")
    counted = pc.value_counts(ids)
    if len(counted) < len(ids):
        first = next(each for each in counted if each["counts"].as_py() > 1)
        raise DataError(f"{origin}: item {first['values'].as_py()!r} is there {first['counts'].as_py()} times; ids must be unique")


def _vectors(column: pa.ChunkedArray, ids: pa.StringArray, origin: str, dim: int | None) -> np.ndarray:
    if column.null_count:
        raise DataError(f"{origin}: item {ids[int(np.flatnonzero(column.is_null().to_numpy())[0])]} has no vector; leave out failed rows")
    array = column.combine_chunks()
    flat = np.asarray(array.flatten().to_numpy(zero_copy_only=False), np.float32)
    found = len(flat) // len(ids) if len(ids) else (dim or 0)
    lengths = pc.unique(pc.list_value_length(array)).to_pylist()
    if len(lengths) > 1 or len(flat) != found * len(ids) or (dim is not None and found != dim):
        wanted = f"dimension {dim}" if dim is not None else "one dimension"
        raise DataError(
            f"{origin}: vectors of dimension {', '.join(map(str, sorted(lengths)[:5]))} where {wanted} is wanted; use one encoder"
        )
    vector_ND = flat.reshape(len(ids), found)
    wrong = np.flatnonzero(~are_unit(vector_ND))
    if len(wrong):
        length = np.linalg.norm(vector_ND[wrong[0]])
        raise DataError(f"{origin}: item {ids[int(wrong[0])]} has a vector of length {length:g}, not 1; L2-normalise first")
    return vector_ND


def are_unit(vector_ND: np.ndarray) -> np.ndarray:
    """Which vectors are finite and of length 1: bool [N]."""
    unit_N: np.ndarray = np.abs(np.linalg.norm(vector_ND, axis=1) - 1) <= _NORM_TOLERANCE  # NaN is not
    return unit_N


def _storable(column: pa.Array, where: str) -> pa.Array:
    """Metadata in one of few types, so that the same column of two sources is of one type; what is no number (NaN) is no value."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _storable(column.dictionary_decode(), where)
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    if pa.types.is_floating(kind):
        number_N = pc.add(column.cast(pa.float64()), 0.0)  # of the two zeros, which are equal, the one without a sign
        return pc.if_else(pc.is_nan(number_N), pa.scalar(None, pa.float64()), number_N)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", "UTC" if kind.tz else None))
    if pa.types.is_boolean(kind):
        return column
    raise DataError(f"{where} is of type {kind}, which cannot be filtered or shown; give numbers, texts, times or truth values, or drop it")


def in_known_types(table: pa.Table, *, origin: str) -> pa.Table:
    """Metadata in the types that a gallery stores; columns of nulls alone are left out.

    Raises:
        DataError: a column cannot be stored.
    """
    names = [name for name in table.column_names if not pa.types.is_null(table.schema.field(name).type)]
    return pa.table({name: _storable(table[name].combine_chunks(), f"{origin}: column {name}") for name in names})


def is_filterable(field: pa.Field) -> bool:
    """Whether a filter may ask for a column."""
    return field.name not in SHOWN_ONLY and any(test(field.type) for test in _FILTERABLE)


def _thumbnails(table: pa.Table) -> pa.LargeBinaryArray:
    if THUMBNAIL not in table.column_names:
        return pa.array([b""] * table.num_rows, pa.large_binary())
    return pc.fill_null(table[THUMBNAIL].cast(pa.large_binary()).combine_chunks(), b"")


def concatenated(batches: Iterable[Items], schema: pa.Schema) -> Items:
    """Batches in one, in order, in `schema`."""
    found = list(batches)
    return Items(
        np.concatenate([each.vectors for each in found]),
        pa.concat_tables([in_schema(each.rows, schema) for each in found]).combine_chunks(),
        pa.concat_arrays([each.thumbnails.cast(pa.large_binary()) for each in found]),
    )
