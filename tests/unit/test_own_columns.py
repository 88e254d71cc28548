"""Columns of a user's own beside a schema: carried in few types, or refused by name; and numbers for cameras' names."""

from __future__ import annotations

import random

import pyarrow as pa
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.own_columns import MADE, SPOKEN_FOR, camera_numbers, merged_own, own_of, own_schema, with_own
from reid_ray.records import EMBEDDINGS, IMAGES, conform
from reid_ray.versions import TABLE_FIELD


def test_each_kind_of_column_is_carried_in_one_type() -> None:
    found = pa.schema(
        [
            *IMAGES,
            ("zone", pa.dictionary(pa.int8(), pa.large_string())),
            ("floor", pa.uint8()),
            ("heat", pa.float32()),
            ("indoor", pa.bool_()),
            ("time", pa.timestamp("ns", "Europe/Berlin")),
            ("nothing", pa.null()),
            ("__index_level_0__", pa.int64()),
        ]
    )
    own = own_schema(found, origin="t")
    assert own == pa.schema(
        [
            ("zone", pa.string()),
            ("floor", pa.int64()),
            ("heat", pa.float64()),
            ("indoor", pa.bool_()),
            ("time", pa.timestamp("us", "UTC")),
        ]
    )
    assert own_schema(found, origin="t", only=["heat"]).names == ["heat"]
    assert own_schema(found, origin="t", only=[]) == pa.schema([])
    assert own_schema(IMAGES, origin="t") == pa.schema([])


def test_what_cannot_be_carried_is_refused_by_its_name_all_of_it_at_once() -> None:
    found = pa.schema(
        [
            *IMAGES,
            ("tags", pa.list_(pa.string())),
            ("when", pa.timestamp("us")),
            ("status", pa.string()),
            ("frame", pa.string()),
            ("a\nb", pa.string()),
        ]
    )
    with refused(DataError, "her.parquet", "tags", "when", "status", "frame", r"a\nb"):
        own_schema(found, origin="her.parquet")
    with refused(DataError, "twice"):
        own_schema(pa.schema([("twice", pa.int8()), ("twice", pa.int8())]), origin="t")
    with refused(DataError, "zona"):
        own_schema(pa.schema([*IMAGES, ("zone", pa.string())]), origin="t", only=["zona"])


def test_files_of_one_table_may_lack_a_column_but_not_hold_it_in_two_types() -> None:
    text, number = pa.schema([("zone", pa.string())]), pa.schema([("floor", pa.int64())])
    assert merged_own([("a", text), ("b", number), ("c", text)]) == pa.schema([*text, *number])
    with refused(DataError, "b.parquet", "zone", "a.parquet"):
        merged_own([("a.parquet", text), ("b.parquet", pa.schema([("zone", pa.int64())]))])


def test_a_table_is_conformed_to_a_schema_with_her_columns_and_keeps_the_formats_number() -> None:
    wide = with_own(IMAGES, pa.schema([("zone", pa.string()), ("floor", pa.int64())]))
    table = conform(pa.table({"image_id": ["a"], "zone": ["hall"], "drop": [1]}), wide, origin="t")
    assert table.schema.names == [*IMAGES.names, "zone", "floor"]
    assert table["zone"].to_pylist() == ["hall"]
    assert table["floor"].to_pylist() == [None]
    assert table.schema.metadata[TABLE_FIELD] == IMAGES.metadata[TABLE_FIELD]
    assert own_of(wide, IMAGES).names == ["zone", "floor"]


def test_the_names_with_a_meaning_clash_with_no_column_of_the_contract() -> None:
    assert not set(MADE.names) & (SPOKEN_FOR | set(IMAGES.names) | set(EMBEDDINGS.names))


def test_cameras_are_numbered_alike_whoever_asks_and_in_whatever_order() -> None:
    names = [f"gate{letter}" for letter in "CABDE"] * 3
    random.Random(1).shuffle(names)
    assert camera_numbers(names) == {"gateA": 1, "gateB": 2, "gateC": 3, "gateD": 4, "gateE": 5} == camera_numbers(set(names))
    assert camera_numbers(["10", "2"]) == {"10": 10, "2": 2}
    assert camera_numbers(["10", "2", "x"]) == {"10": 1, "2": 2, "x": 3}
    assert camera_numbers(["007", "7"]) == {"007": 1, "7": 2}  # written differently, they are two
    assert camera_numbers([]) == {}
