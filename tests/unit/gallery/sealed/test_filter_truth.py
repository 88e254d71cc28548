"""A filter over any column passes what a loop over the rows passes: in the log, in segments, after merging, and over shares."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from gallery_pair import DIM, table, unit

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.shards.joined_view import JoinedView
from reid_ray.gallery.shards.one_share import Shard
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.shards.share import Share

pytestmark = pytest.mark.slow

HOURS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(4)]
COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "whole": (pa.int64(), [None, -3, 0, 2, 2**62]),
    "small": (pa.int8(), [None, -128, 0, 127]),
    "number": (pa.float64(), [None, 0.0, -0.0, 1.5, -math.inf, math.inf, math.nan, 0.1]),
    "half": (pa.float16(), [None, np.float16(0.5), np.float16(-0.0), np.float16(math.nan)]),
    "text": (pa.string(), [None, "", "a", "A", "\u00e4", "a\u0308", "\U0001f600", "z" * 300]),
    "truth": (pa.bool_(), [None, True, False]),
    "time": (pa.timestamp("ms", "UTC"), [None, *HOURS]),
}
Row = dict[str, Any]


def is_value(value: Any) -> bool:
    return value is not None and not (isinstance(value, float | np.floating) and math.isnan(value))


def in_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else float(value) if isinstance(value, np.floating) else value


def filters_of(rng: np.random.Generator, column: str) -> list[tuple[dict[str, Any], Any]]:
    """Filters of a column in their JSON form, and what each says of a value that is one."""
    values = [each for each in COLUMNS[column][1] if is_value(each)]
    some = [values[at] for at in rng.integers(len(values), size=2)]
    low, high = sorted(some)
    found = [({column: in_json(value)}, lambda each, value=value: each == value) for value in values]
    found.append(({column: [in_json(value) for value in some]}, lambda each: each in some))
    if column != "truth":
        found.append(({column: {"from": in_json(low)}}, lambda each: each >= low))
        found.append(({column: {"to": in_json(high)}}, lambda each: each <= high))
        found.append(({column: {"from": in_json(low), "to": in_json(high)}}, lambda each: low <= each <= high))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_filter_passes_what_a_loop_over_the_rows_passes(tmp_path, seed):
    folder, rng = tmp_path / "gallery", np.random.default_rng(seed)
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=1_000, merge_rows=1_000))
    rows: dict[str, Row] = {}
    with GalleryWriter(folder) as writer:

        def add() -> None:
            ids = [f"item {number}" for number in range(len(rows), len(rows) + 15)]
            chosen = {name: column for name, column in COLUMNS.items() if rng.random() < 0.8}  # some columns come later than others
            data = {name: [values[at] for at in rng.integers(len(values), size=15)] for name, (_, values) in chosen.items()}
            columns = {name: pa.array(values, COLUMNS[name][0]) for name, values in data.items()}
            writer.add(table(ids, unit(rng, 15), **columns), encoder="e")
            rows.update({each: {name: values[at] for name, values in data.items()} for at, each in enumerate(ids)})

        def check() -> None:
            shares = ShardedView([Shard(folder, Share(number, 2)) for number in range(2)])
            query = unit(rng, 1)
            for name in set(COLUMNS) & set(writer.view.columns()):
                for where, passes in filters_of(rng, name):
                    wanted = {each for each, row in rows.items() if is_value(row.get(name)) and passes(row[name])}
                    assert set(writer.view.ids(where)) == wanted, where
                    for view in (writer.view, JoinedView(str(folder), shares)):
                        assert {hit.item_id for hit in view.search(query, 200, where=where)[0]} == wanted, where
                counted = Counter(in_json(row[name]) for row in rows.values() if is_value(row.get(name)))
                facets = {in_json(value): count for value, count in writer.view.facets([name])[name].items()}
                assert facets == counted, name
            shares.close()

        for change in (lambda: None, writer.seal, writer.seal, lambda: None, writer.compact):
            add()
            change()
            check()


def test_a_time_of_a_filter_is_utc_unless_it_says_its_zone(tmp_path):
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e", config=GalleryConfig())
    times = pa.array(HOURS, COLUMNS["time"][0])  # from midnight UTC, an hour apart
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(table(list("0123"), unit(np.random.default_rng(0), 4), time=times), encoder="e")
        for _ in range(2):
            assert set(writer.view.ids({"time": {"from": "2026-01-01T02:00"}})) == {"2", "3"}
            assert set(writer.view.ids({"time": {"from": "2026-01-01T02:00+01:00"}})) == {"1", "2", "3"}
            writer.seal()
