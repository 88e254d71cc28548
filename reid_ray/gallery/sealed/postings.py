"""Filters over columns of metadata, and the posting lists that answer them: which rows pass, known without reading the rows.

A posting list of a column holds its values in order and, for each, the rows that have it: a set of values and a range are slices. Nulls
pass no condition. Ids have none: each is looked up (id_lookup.py). Knows columns and rows; not vectors or files' places.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import ConfigError
from reid_ray.gallery.items import ID, is_filterable
from reid_ray.gallery.sealed.id_lookup import id_hashes

MOST_VALUES = 50_000  # of a column that are counted one by one: some megabytes, and a few hundredths of a second
_MOST_SHOWN = 80  # characters of what was asked that a message repeats


@dataclass(frozen=True)
class Condition:
    """What a column must be: one of `values`, or from `low` to `high` (both included, either may be open)."""

    column: str
    values: tuple[Any, ...] | None = None
    low: Any = None
    high: Any = None

    @cached_property
    def hashes(self) -> np.ndarray:
        """id_hashes of the values, of a condition on ids, uint64 [V]: made once, for every segment is asked."""
        return id_hashes(self.values or ())


Filter = tuple[Condition, ...]
"""Conditions that must all hold; none: everything passes."""


def parsed_filter(asked: Mapping[str, Any] | None, schema: pa.Schema) -> Filter:
    """A filter from its JSON form: {column: value, [values] or {"from": low, "to": high}}; times as ISO 8601.

    Raises:
        ConfigError: a column that the gallery lacks or that no filter reads, or a value of another type than the column; names both.
    """
    if not asked:
        return ()
    conditions = []
    known = filterable(schema)
    for column, wanted in asked.items():
        if column not in known:
            raise ConfigError(f"filter {_shown(column)}: is no column that can be filtered; there are {', '.join(known)}")
        kind = schema.field(column).type
        if isinstance(wanted, Mapping):
            if column == ID:
                raise ConfigError(f"filter {ID}: takes an id or a list of them, not a range: ids have no order that means anything")
            if not wanted or (unknown := sorted(set(wanted) - {"from", "to"})):
                raise ConfigError(f"filter {column}: a range has the keys from and to, not {', '.join(unknown) if wanted else 'none'}")
            bounds = {end: _typed(value, kind, column) for end, value in wanted.items()}
            conditions.append(Condition(column, low=bounds.get("from"), high=bounds.get("to")))
        else:
            several = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
            conditions.append(Condition(column, values=tuple(_typed(value, kind, column) for value in several)))
    return tuple(conditions)


def filterable(schema: pa.Schema) -> dict[str, str]:
    """Columns that a filter can read, and what each holds, in words."""
    return {field.name: _words(field.type) for field in schema if is_filterable(field)}


@dataclass(frozen=True)
class Postings:
    """The posting list of one column.

    values: its distinct values but null, ascending [V].
    start_V1: where the rows of each value begin in row_N; V + 1 numbers.
    row_N: row numbers, by value and then ascending.
    """

    values: pa.Array
    start_V1: np.ndarray
    row_N: np.ndarray

    @classmethod
    def of(cls, column: pa.Array) -> Postings:
        """The posting list of a column, uint32 rows."""
        encoded = column.dictionary_encode()
        order = pc.sort_indices(encoded.dictionary).to_numpy()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        code_N = pc.fill_null(encoded.indices, -1).to_numpy()
        there = np.flatnonzero(code_N >= 0)
        rank_N = rank[code_N[there]]
        row_N = there[np.argsort(rank_N, kind="stable")].astype(np.uint32)
        counts = np.bincount(rank_N, minlength=len(order))
        return cls(encoded.dictionary.take(pa.array(order)), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), row_N)

    def spans(self, condition: Condition) -> list[tuple[int, int]]:
        """Slices of row_N whose rows meet a condition."""
        if condition.values is not None:
            found = pc.index_in(pa.array(condition.values, self.values.type), value_set=self.values).drop_null().to_pylist()
            return [(int(self.start_V1[at]), int(self.start_V1[at + 1])) for at in sorted(set(found))]
        low = 0 if condition.low is None else self._bisect(condition.low, before=True)
        high = len(self.values) if condition.high is None else self._bisect(condition.high, before=False)
        return [(int(self.start_V1[low]), int(self.start_V1[high]))] if low < high else []

    def _bisect(self, value: Any, *, before: bool) -> int:
        """How many values come before `value`, or before or at it."""
        compare = pc.less if before else pc.less_equal
        low, high = 0, len(self.values)
        bound = pa.scalar(value, self.values.type)
        while low < high:
            middle = (low + high) // 2
            if compare(self.values[middle], bound).as_py():
                low = middle + 1
            else:
                high = middle
        return low


def passing_rows(wanted: Filter, columns: Mapping[str, Postings], rows: int) -> np.ndarray:
    """Which rows pass: bool [rows]. A column without postings has no value in any row."""
    passing = np.ones(rows, np.bool_)
    for condition in wanted:
        meets = np.zeros(rows, np.bool_)
        if condition.column in columns:
            postings = columns[condition.column]
            for start, stop in postings.spans(condition):
                meets[postings.row_N[start:stop]] = True
        passing &= meets
    return passing


def value_counts(postings: Postings, counts_N: np.ndarray) -> dict[Any, int]:
    """How many rows that count (bool [N]) have each value of a column; values without any are left out.

    Of more than MOST_VALUES values it is {None: how many rows have one}: a column that nearly tells the items apart is asked for by value,
    not chosen from, and a dictionary of millions is never made.
    """
    if not len(postings.values) or not len(postings.row_N):
        return {}
    sums = np.add.reduceat(counts_N[postings.row_N].astype(np.int64), postings.start_V1[:-1])
    there = np.flatnonzero(sums)
    if len(there) > MOST_VALUES:
        return {None: int(sums.sum())}
    return dict(zip(postings.values.take(pa.array(there)).to_pylist(), sums[there].tolist(), strict=True))


def add_counts(total: dict[Any, int], counts: Mapping[Any, int]) -> None:
    """Add what value_counts gave for another part; beyond MOST_VALUES only how many rows have a value is left, under None."""
    if None not in total and None not in counts:
        for value, count in counts.items():
            total[value] = total.get(value, 0) + count
        if len(total) <= MOST_VALUES:
            return
        counts = {}
    rows = sum(total.values()) + sum(counts.values())
    total.clear()
    total[None] = rows


def _typed(value: Any, kind: pa.DataType, column: str) -> Any:
    quoted = f'"{_shown(json.dumps(value))}"' if isinstance(value, bool | int | float) and pa.types.is_string(kind) else None
    remedy = "" if quoted is None else f"; as a text it is {quoted}, in a shell '{_shown(column)}={quoted}'"
    wrong = ConfigError(f"filter {column}: {_shown(repr(value))} is no {_words(kind)}, which the column holds{remedy}")
    try:
        found = _in_python(value, kind, wrong)
        pa.scalar(found, kind)
    except (OverflowError, ValueError):  # infinity, more than 64 bits, half of a surrogate pair, a year before the first nanosecond
        raise ConfigError(f"filter {column}: {_shown(repr(value))} does not fit into the column, which holds {kind}") from None
    return found


def _in_python(value: Any, kind: pa.DataType, wrong: ConfigError) -> Any:
    if pa.types.is_boolean(kind):
        if not isinstance(value, bool):
            raise wrong
        return value
    if pa.types.is_string(kind):
        if not isinstance(value, str):
            raise wrong
        return value
    if pa.types.is_timestamp(kind):
        return _time(value, kind, wrong)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or math.isnan(value)
        or (pa.types.is_integer(kind) and value != int(value))
    ):
        raise wrong
    return int(value) if pa.types.is_integer(kind) else float(value) + 0.0  # of the two zeros the one that is stored


def _shown(text: str) -> str:
    """A text from anywhere as a message can hold it."""
    plain = text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
    return plain if len(plain) <= _MOST_SHOWN else f"{plain[:_MOST_SHOWN]}..."


def _time(value: Any, kind: pa.TimestampType, wrong: ConfigError) -> datetime:
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise wrong from None
    if kind.tz is None:
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _words(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "time in ISO 8601"
    if pa.types.is_boolean(kind):
        return "truth value"
    return "text" if pa.types.is_string(kind) else "whole number" if pa.types.is_integer(kind) else "number"
