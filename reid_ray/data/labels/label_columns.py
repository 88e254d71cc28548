"""The columns that say what is known of an image, value by value: which type each name has, and what is wrong with a text that has not.

Knows names and values; not paths, tables or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.called import called
from reid_ray.data.containers.values import shown, split_name, whole
from reid_ray.data.labels.time_reader import NoZoneError, TimeReader
from reid_ray.errors import DataError
from reid_ray.own_columns import MADE, TIME
from reid_ray.records import IMAGES
from reid_ray.storage.regular_files import printable

# "reason: detail" where what is said of an image cannot be used; its row fails with it.
REFUSED = pa.field("unread", pa.string())
LABELS = pa.schema([*(IMAGES.field(name) for name in ("split", "person_id", "camera_id")), REFUSED])
_BITS = {pa.int64(): 63, pa.int32(): 31}


class OutOfRangeError(ValueError):
    """A whole number that its column cannot hold."""


def type_of_name(name: str) -> pa.DataType | None:
    """The type of a column whose name has a meaning; None: it is one of her own."""
    known = LABELS if name in LABELS.names else MADE
    return known.field(name).type if name in known.names else None


def value_reader(name: str, times: TimeReader) -> Callable[[Any], Any]:
    """Reads a value that is not null of a column by its name. What it returns raises ValueError, in words, for what is no such value."""
    kind = type_of_name(name)
    if name == "split":
        return lambda value: split_name(printable(str(value)))
    if kind in _BITS:
        return lambda value: _whole(value, name, _BITS[kind])
    if kind == pa.float64():
        return lambda value: _number(value, name)
    if kind is not None and pa.types.is_timestamp(kind):
        return times.read
    return lambda value: printable(str(value))


def read_values(name: str, values: Sequence[Any], times: TimeReader, *, origin: str, reason: str) -> tuple[list[Any], dict[int, str]]:
    """The values of a column, and by row why those that are no such value are null: "reason: detail".

    Args:
        name: of the column.
        values: None where there is none.
        times: reads times.
        origin: what messages call what they stand in.
        reason: the code of what is no such value; a number that is too large is id_out_of_range.

    Raises:
        DataError: times do not say their zone, nor does the configuration.
    """
    read, wrong = value_reader(name, times), dict[int, str]()
    found: list[Any] = []
    for row, value in enumerate(values):
        try:
            found.append(None if value is None else read(value))
        except NoZoneError as error:
            raise DataError(f"{origin}: {error}") from None
        except ValueError as error:
            wrong[row] = f"{'id_out_of_range' if isinstance(error, OutOfRangeError) else reason}: {error}"
            found.append(None)
    return found, wrong


def in_utc(column: pa.Array, zone: str | None, where: str) -> pa.Array:
    """A column of moments in UTC; of the hour that comes twice in autumn the first one is meant.

    Raises:
        DataError: they do not say their zone, and it is not given.
    """
    if column.type.tz is None:
        if zone is None:
            raise DataError(f"{where}: its times do not say their zone; set {called('time_zone')}, such as Europe/Berlin or UTC")
        column = pc.assume_timezone(column, zone, ambiguous="earliest", nonexistent="earliest")
    return column.cast(TIME, safe=False)


def _whole(value: Any, name: str, bits: int) -> int | None:
    try:
        number = whole(value, name)
    except ValueError as error:
        hint = "; a camera that has a name goes by camera" if name == "camera_id" else ""
        raise ValueError(f"{error}{hint}") from None
    if number is not None and not -(1 << bits) <= number < (1 << bits):
        raise OutOfRangeError(f"{name} is {shown(value)}, which is too large for its column")
    return number


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{name} is {shown(value)}, not a number") from None
