"""Columns of a user's own (zone, time, a camera's name): which may stand beside a table's schema, in which types, and which are refused.

A table of images may hold further columns after those of IMAGES. They are carried by name, as Arrow columns, into EMBEDDINGS and a
gallery, or refused by name: none is dropped in silence. The caption job carries them into CAPTIONS, too; SEGMENTS and the like do not
repeat them, and image_id leads back to them.
Knows schemas; not where a column comes from, or who filters by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

from reid_ray.config.called import called
from reid_ray.errors import DataError
from reid_ray.records import EMBEDDINGS, IMAGES

TIME = pa.timestamp("us", "UTC")
# Names that have a meaning of their own, and its type: what jobs of this project write, and what the page knows how to show.
MADE = pa.schema(
    [
        pa.field("camera", pa.string()),  # the camera's own name, beside camera_id, which numbers the names (camera_numbers)
        pa.field("time", TIME),  # when the picture was taken
        pa.field("track", pa.string()),  # which pictures are one person's way past a camera
        pa.field("frame", pa.int64()),  # of a video, from 0
        pa.field("video", pa.string()),  # the file or folder that the frame is of
        pa.field("left", pa.int64()),  # of the box in the frame, pixels; right and bottom exclusive
        pa.field("top", pa.int64()),
        pa.field("right", pa.int64()),
        pa.field("bottom", pa.int64()),
        pa.field("detection", pa.float64()),  # the detector's score
    ]
)
NOTHING_OWN = pa.schema([])
# Names that mean something else on the way to a gallery's columns, or in them.
SPOKEN_FOR = frozenset(EMBEDDINGS.names) | {
    "thumbnail",
    "encoder_fingerprint",
    "text_tokens",
    "text_truncated",
    "added_s",
    "caption",
    "unread",
    "ask",
    "plan",
}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,8})")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # row numbers that pandas keeps for itself
_LONGEST = 100
_TYPES = "text, whole numbers up to 64 bits, numbers, truth values or times with a time zone"


def own_schema(found: pa.Schema, *, origin: str, base: pa.Schema = IMAGES, only: Sequence[str] | None = None) -> pa.Schema:
    """The columns of her own of a table, in its order and in the types in which they are carried.

    A column of nulls alone says nothing, not even its type, and is left out, as is the index that pandas keeps in a column.

    Args:
        found: the schema of the table.
        origin: what messages call it.
        base: the contract's schema, whose columns are none of her own.
        only: which of them are wanted; None takes all.

    Raises:
        DataError: a name that is wanted is not there; or a column that cannot be carried: it names every such column and why.
    """
    further = [field for field in found if field.name not in base.names and not _PANDAS_INDEX.fullmatch(field.name)]
    if only is not None:
        if missing := [name for name in only if name not in {field.name for field in further}]:
            raise DataError(f"{origin}: has no column {', '.join(missing)} of its own; it has {', '.join(found.names)}")
        further = [field for field in further if field.name in only]
    further = [field for field in further if not pa.types.is_null(field.type)]
    if refused := [said for field in further if (said := _why_refused(field, [each.name for each in further]))]:
        raise DataError(
            f"{origin}: {'; '.join(refused)}; rename or convert it, or list in {called('own')} which further columns are carried"
        )
    return pa.schema([pa.field(field.name, carried_type(field.type)) for field in further])


def merged_own(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """The columns of her own of several files of a table: each that any of them has; null where a file lacks it.

    Args:
        schemas: (what messages call the file, what own_schema gave for it).

    Raises:
        DataError: a column is of one type in one file and of another in the next; names both files.
    """
    merged: dict[str, tuple[pa.Field, str]] = {}
    for origin, schema in schemas:
        for field in schema:
            known, first = merged.setdefault(field.name, (field, origin))
            if known.type != field.type:
                raise DataError(f"{origin}: column {field.name} is {field.type}, but {known.type} in {first}; write them in one type")
    return pa.schema([field for field, _ in merged.values()])


def with_own(base: pa.Schema, own: pa.Schema) -> pa.Schema:
    """`base` with her own columns after its own; conform and table_of take it. Its metadata, and with it the format's number, stay."""
    return pa.schema([*base, *own], metadata=base.metadata)


def own_of(schema: pa.Schema, base: pa.Schema) -> pa.Schema:
    """Her own columns of a schema that with_own made."""
    return pa.schema([field for field in schema if field.name not in base.names])


def carried_type(kind: pa.DataType) -> pa.DataType | None:
    """The type in which a column of a type is carried; None: not at all."""
    if pa.types.is_dictionary(kind):
        return carried_type(kind.value_type)
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    if pa.types.is_boolean(kind):
        return pa.bool_()
    return TIME if pa.types.is_timestamp(kind) and kind.tz is not None else None


def camera_numbers(names: Iterable[str]) -> dict[str, int]:
    """Numbers for camera_id by the cameras' names: the same whoever asks, and in whatever order, as long as all names are given.

    Where every name is a whole number, that is its number; else they are numbered from 1 in sorted order.
    """
    distinct = sorted(set(names))
    if distinct and all(_WHOLE.fullmatch(name) for name in distinct):
        return {name: int(name) for name in distinct}
    return {name: number for number, name in enumerate(distinct, 1)}


def _why_refused(field: pa.Field, names: Sequence[str]) -> str | None:
    shown = repr(field.name) if len(field.name) <= _LONGEST else f"{field.name[:_LONGEST]!r}..."
    carried = carried_type(field.type)
    why = None
    if not field.name.strip() or not field.name.isprintable() or len(field.name) > _LONGEST:
        why = f"has no usable name (1 to {_LONGEST} printable characters)"
    elif names.count(field.name) > 1:
        why = "is there more than once"
    elif field.name in SPOKEN_FOR:
        why = "has a name that means something else in embeddings and galleries"
    elif carried is None and pa.types.is_timestamp(field.type):
        why = "is of times without a time zone (pandas: tz_localize; or ingest with source.time_zone)"
    elif carried is None:
        why = f"is {field.type}, but only {_TYPES} are carried"
    elif field.name in MADE.names and carried != (wanted := MADE.field(field.name).type):
        why = f"is {field.type}, but this name is kept for {wanted}"
    return why and f"column {shown} {why}"
