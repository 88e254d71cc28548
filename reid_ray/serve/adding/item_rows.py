"""Columns of items that come from outside: JSON values in the gallery's types, and which columns of a table of pictures describe items.

Knows types and names; not files, encoders or who asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from reid_ray.data.pieces import UNREAD
from reid_ray.errors import ConfigError
from reid_ray.gallery.items import ADDED, ID, THUMBNAIL, VECTOR, in_known_types
from reid_ray.records import EMBEDDINGS, IMAGES
from reid_ray.retrieval.embed_stream import ENCODER
from reid_ray.retrieval.index.taken_rows import NOT_METADATA

# Names that mean something else in a gallery or in the tables that lead there.
_TAKEN = frozenset({ID, VECTOR, THUMBNAIL, ADDED, ENCODER.name, "file", "image", *NOT_METADATA})
# Of a table of pictures: how the file is, not who is on it.
_OF_FILES = frozenset({"image", "path", "image_sha256", "width", "height", "attributes", UNREAD.name})
_NAME_CHARS, _TEXT_CHARS, _LARGEST = 100, 10_000, 1e300  # the last is no infinity, and NaN is below nothing


@dataclass(frozen=True)
class ColumnTypes:
    """The type of each column that items bring."""

    types: Mapping[str, pa.DataType]

    @classmethod
    def of(cls, rows: Sequence[tuple[str, Mapping[str, Any]]], schema: pa.Schema) -> ColumnTypes:
        """Those that the gallery has, and of others what the values are.

        Args:
            rows: (file, {column: value}).
            schema: the gallery's columns.

        Raises:
            ConfigError: a value that cannot be stored, or of another type than the column; names file and column.
        """
        types: dict[str, pa.DataType] = {}
        for file, columns in rows:
            for name, value in columns.items():
                where = f"items: {name[:_NAME_CHARS]} of {file[:_NAME_CHARS]!r}"
                if not 0 < len(name) <= _NAME_CHARS or not name.isprintable() or name in _TAKEN:
                    raise ConfigError(f"{where} cannot be a column of an item; name it otherwise")
                at = schema.get_field_index(name)
                if at >= 0:
                    types[name] = schema.field(at).type
                    _typed(value, types[name], where)
                elif value is not None:
                    types[name] = _joined(types.get(name), value, where)
        return cls(types)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
        """The columns of some rows; a row without a value has null."""
        return {
            name: pa.array([_typed(row.get(name), kind, f"items: {name}") for row in rows], kind)
            for name, kind in self.types.items()
            if any(row.get(name) is not None for row in rows)
        }


def picture_columns(table: pa.Table) -> pa.Table:
    """The columns of a table of pictures that describe items, in types that a gallery stores; item_id is image_id where it is missing.

    Raises:
        DataError: a column cannot be stored.
    """
    names = [name for name in table.column_names if name not in _OF_FILES and name not in _TAKEN]
    return in_known_types(table.select(names), origin="table")


def picture_rows(table: pa.Table) -> pa.Table:
    """A table of pictures as rows of IMAGES, its own ids in the column image_id; what is not known is null."""
    ids = table[ID] if ID in table.column_names else table["image_id"]
    rows = table.num_rows
    columns = {field.name: pa.nulls(rows, field.type) for field in IMAGES}
    columns |= {"image_id": ids.cast(pa.string()), "image": table["image"].cast(pa.binary())}
    return pa.table(columns)


def bare_items(embedded: pa.Table, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Embedded rows with these columns instead of those that the embed job hands on."""
    kept = [name for name in embedded.column_names if name not in EMBEDDINGS.names or name in (ID, VECTOR, *NOT_METADATA)]
    table = embedded.select(kept)
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table


def _joined(known: pa.DataType | None, value: Any, where: str) -> pa.DataType:
    found = _type_of(value, where)
    if known is None or known == found:
        return found
    if {known, found} == {pa.int64(), pa.float64()}:
        return pa.float64()
    raise ConfigError(f"{where} is {found}, but {known} in another item; give one type")


def _type_of(value: Any, where: str) -> pa.DataType:
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        _typed(value, pa.int64(), where)
        return pa.int64()
    if isinstance(value, float):
        _typed(value, pa.float64(), where)
        return pa.float64()
    if isinstance(value, str):
        _typed(value, pa.string(), where)
        return pa.string()
    raise ConfigError(f"{where} must be a text, a number, true or false")


def _typed(value: Any, kind: pa.DataType, where: str) -> Any:
    """A JSON value as one of a column's type."""
    if value is None:
        return None
    if pa.types.is_boolean(kind) and isinstance(value, bool):
        return value
    if pa.types.is_integer(kind) and isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63:
        return value
    if pa.types.is_floating(kind) and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)
    if pa.types.is_string(kind) and isinstance(value, str) and len(value) <= _TEXT_CHARS and _is_unicode(value):
        return value
    if pa.types.is_timestamp(kind) and isinstance(value, str) and (moment := _moment(value, kind)) is not None:
        return moment
    shown = "time (2026-01-31T12:00:00, with +00:00 or Z where the gallery's times have a zone)" if pa.types.is_timestamp(kind) else kind
    raise ConfigError(f"{where} is no {shown}, or too large; the gallery's column is {kind}")


def _moment(text: str, kind: pa.DataType) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if (moment.tzinfo is None) != (kind.tz is None):
        return None
    return moment if kind.tz is None else moment.astimezone(UTC)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
