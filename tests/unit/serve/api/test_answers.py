"""Bodies of answers: what JSON has no word for, and where small pictures are asked for."""

import json
from datetime import UTC, datetime
from fractions import Fraction
from urllib.parse import quote

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_ray.serve.api.answers import JSONAnswer, thumbnail_path


def body(content):
    """What a client reads of an answer."""
    return json.loads(JSONAnswer(content).body)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_null(number):
    assert body({"hits": [{"item": {"speed": number}}]}) == {"hits": [{"item": {"speed": None}}]}


@pytest.mark.parametrize("time", [datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5)])
def test_a_time_is_read_back_as_it_is_stored(time):
    assert datetime.fromisoformat(body({"item": {"time": time}})["item"]["time"]) == time


def test_half_of_a_surrogate_pair_becomes_a_question_mark_and_spoils_nothing_beside_it():
    assert body({"answers": [{"detail": "no column \ud800", "\udfff": (1, float("nan"))}, {"k": 20}]}) == {
        "answers": [{"detail": "no column ?", "?": [1, None]}, {"k": 20}]
    }


def test_what_another_gallery_holds_beyond_json_spoils_nothing_beside_it():
    assert body({"item": {"raw": b"\xff\xd8", "part": Fraction(1, 2), "k": 20}}) == {"item": {"raw": None, "part": "1/2", "k": 20}}


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=examples(50))
@given(_json)
def test_whatever_json_has_a_word_for_is_read_back(content):
    assert body(content) == json.loads(json.dumps(content).encode("utf-8", "replace"))


@settings(max_examples=examples(50))
@given(st.text() | st.text("aZ09_.~-/ %?&#"))
def test_a_small_pictures_path_quotes_whatever_an_id_holds(item_id):
    assert thumbnail_path(item_id) == "v1/thumbnails?id=" + quote(item_id, safe="", errors="replace")
