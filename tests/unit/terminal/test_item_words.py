"""What a gallery holds, in words: times as dates, ids by name, everything else as it is."""

from datetime import UTC, datetime

import pytest

from reid_ray.config.filter_words import where_of_words
from reid_ray.gallery import items
from reid_ray.terminal.item_words import ADDED, ids_in_words, item_in_words, value_in_words


def test_the_time_of_adding_is_a_date_in_utc_and_is_read_back_as_a_filter():
    assert items.ADDED == ADDED
    said = value_in_words(ADDED, 1772349300.75)
    assert said == "2026-03-01T07:15:00Z"
    assert where_of_words([f"{ADDED}={said}"]) == {ADDED: 1772349300.0}
    assert where_of_words([f'{ADDED}={{"from": "2026-03-01T08:15:00+01:00", "to": 5}}']) == {ADDED: {"from": 1772349300.0, "to": 5}}
    assert where_of_words([f"{ADDED}=yesterday"]) == {ADDED: "yesterday"}


@pytest.mark.parametrize(("column", "value"), [("zone", "hall"), ("frame", 1772349300), ("late", True), (ADDED, None)])
def test_what_is_no_time_stays(column, value):
    assert value_in_words(column, value) == value


def test_an_item_is_a_line_of_json_without_what_it_has_not():
    item = {"item_id": "a", "zone": None, "time": datetime(2026, 3, 1, 7, 15, tzinfo=UTC), ADDED: 0.5}
    assert item_in_words(item) == '{"time": "2026-03-01T07:15:00+00:00", "added_s": "1970-01-01T00:00:00Z"}'


def test_of_many_ids_the_first_are_named():
    assert ids_in_words(["a", "b"]) == "a, b"
    assert ids_in_words([str(n) for n in range(2000)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 1,992 more"
