"""Rows are read as Arrow itself gives them, whatever they hold and however they lie."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_ray.gallery.row_reader import RowReader

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
COLUMNS = {
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "number": (pa.float64(), st.floats(allow_nan=False)),
    "text": (pa.string(), TEXTS),
    "truth": (pa.bool_(), st.booleans()),
    "time": (pa.timestamp("us", "UTC"), TIMES),
    "words": (pa.list_(pa.string()), st.lists(TEXTS, max_size=2)),
}


@st.composite
def tables(draw):
    count = draw(st.integers(1, 9))
    columns = {}
    for name, (kind, values) in COLUMNS.items():
        given_values = draw(st.lists(draw(st.sampled_from([values, st.none() | values])), min_size=count, max_size=count))
        columns[name] = pa.array(given_values, kind)
    table = pa.table(columns)
    cut = draw(st.integers(0, count))
    return draw(st.sampled_from([table, table.slice(cut // 2), pa.concat_tables([table.slice(0, cut), table.slice(cut)])]))


@given(tables(), st.data())
@settings(max_examples=examples(60), deadline=None)
def test_what_is_read_is_what_arrow_takes(table, data):
    rows = data.draw(st.lists(st.integers(0, max(table.num_rows - 1, 0)), max_size=5 if table.num_rows else 0))
    reader, names = RowReader(table), [*table.column_names, "lacking"]
    expected = [{**row, "lacking": None} for row in table.take(pa.array(rows, pa.int64())).to_pylist()]
    assert reader.dicts(rows, names) == reader.dicts(rows, names) == expected


@pytest.mark.parametrize("kind", [kind for kind, _ in COLUMNS.values()], ids=str)
def test_a_column_of_nulls_and_an_empty_one_are_read(kind):
    assert RowReader(pa.table({"a": pa.array([None], kind)})).dicts([0], ["a"]) == [{"a": None}]
    assert RowReader(pa.table({"a": pa.array([], kind)})).dicts([], ["a"]) == []


def test_many_rows_are_read_as_few_are():
    table = pa.table({"time": pa.array(range(200), pa.timestamp("us", "UTC")), "text": [f"{n}" for n in range(200)]})
    assert RowReader(table).dicts(range(200), ["time", "text"]) == table.to_pylist()
