"""A filter takes what its column can hold; whatever else is asked is a sentence, never another error, and never a text without an end."""

from __future__ import annotations

import pyarrow as pa
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_ray.config.filter_words import where_of_words
from reid_ray.errors import ConfigError
from reid_ray.gallery.sealed.postings import Condition, parsed_filter

COLUMNS = {
    "camera_id": pa.int64(),
    "place": pa.int16(),
    "score": pa.float64(),
    "name": pa.string(),
    "item_id": pa.string(),
    "seen": pa.timestamp("ns", tz="UTC"),
    "synthetic": pa.bool_(),
}
SCHEMA = pa.schema(list(COLUMNS.items()))
HALF = "\ud83d"  # of a surrogate pair


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *[
            ("camera_id", value)
            for value in (2**63, -(2**70), 1e300, 1.5, float("nan"), float("inf"), "1", True, None, [[1]], {"from": 2**64})
        ],
        *[("place", value) for value in (40_000, [1, -40_000], {"to": 1 << 15})],
        *[("score", value) for value in ("1", False, None, float("nan"), 10**400)],
        *[("name", value) for value in (HALF, 5, None, [HALF], {"from": HALF})],
        *[("seen", value) for value in ("yesterday", 5, "0001-01-01", "9999-12-31", None)],
        *[("item_id", value) for value in (5, None, {"from": "a"}, {"from": "a", "to": "b"}, {})],
        *[("synthetic", value) for value in (1, "true", None)],
        *[(column, 1) for column in ("nothing", HALF, "x" * 10_000, "")],
    ],
)
def test_a_value_that_a_column_cannot_hold_is_refused_by_column(column, value):
    with pytest.raises(ConfigError) as error:
        parsed_filter({column: value}, SCHEMA)
    said = str(error.value)
    said.encode()
    assert said.startswith(f"filter {column[:10].encode('ascii', 'backslashreplace').decode()}")
    assert len(said) < 400


def test_a_number_for_a_column_of_texts_is_told_how_it_is_a_text():
    with pytest.raises(ConfigError) as error:
        parsed_filter({"name": [12]}, SCHEMA)
    assert str(error.value).endswith("""; as a text it is "12", in a shell 'name="12"'""")
    (condition,) = parsed_filter(where_of_words(['name="12"']), SCHEMA)
    assert condition.values == ("12",)


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(
    st.sampled_from(sorted(COLUMNS)),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)), st.lists),
)
def test_any_value_is_a_condition_or_refused(column, value):
    try:
        found = parsed_filter({column: value}, SCHEMA)
    except ConfigError as error:
        str(error).encode()
        return
    assert [type(each) for each in found] == [Condition]
    for each in found[0].values:
        pa.scalar(each, COLUMNS[column])
