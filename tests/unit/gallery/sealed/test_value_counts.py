"""Counts of a column's values: exact while they are few, and never a dictionary of as many values as there are items."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from reid_ray.gallery.sealed import postings
from reid_ray.gallery.sealed.postings import MOST_VALUES, Postings, add_counts, value_counts


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(postings, "MOST_VALUES", 4)


def test_counts_are_those_of_counting_one_by_one():
    values = [None, "a", "b", "a", "c", None, "b", "a"]
    passing_N = np.array([True, True, False, True, True, True, False, False])
    counted = Counter(value for value, passes in zip(values, passing_N, strict=True) if passes and value is not None)
    assert value_counts(Postings.of(pa.array(values)), passing_N) == dict(counted)


def test_of_very_many_values_only_how_many_items_have_one_is_known_and_a_filter_that_leaves_few_tells_them(few):
    column = Postings.of(pa.array([f"track {number // 2}" for number in range(20)] + [None]))
    assert value_counts(column, np.ones(21, np.bool_)) == {None: 20}
    some_N = np.zeros(21, np.bool_)
    some_N[[0, 1, 6]] = True
    assert value_counts(column, some_N) == {"track 0": 2, "track 3": 1}


def test_parts_whose_values_are_few_each_may_be_too_many_together_in_any_order(few):
    parts = [{f"{part}-{number}": part + 1 for number in range(2)} for part in range(4)] + [{None: 100}]
    for order in (parts, parts[::-1], parts[2:] + parts[:2]):
        total: dict = {}
        for part in order:
            add_counts(total, part)
        assert total == {None: 2 * (1 + 2 + 3 + 4) + 100}
    total = {}
    for part in parts[:2]:
        add_counts(total, part)
    assert total == parts[0] | parts[1]


def test_a_column_that_tells_four_million_items_apart_costs_no_dictionary():
    rows = MOST_VALUES + 1
    assert value_counts(Postings.of(pa.array(np.arange(rows))), np.ones(rows, np.bool_)) == {None: rows}
