"""Parquet of other origin: images and ids as pandas and Hugging Face's datasets write them, row by row, by every reader of such tables."""

import math
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from reid_ray.config.common import ImagesConfig
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import ImageRecord, read_source
from reid_ray.data.sources import image_listing, iter_images
from reid_ray.errors import DataError, ReidRayError
from reid_ray.records import IMAGES, conform
from reid_ray.storage import read_table

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(folder, **columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image_id": [f"{index}" for index in range(3)], **columns}), folder / "0.parquet")


def read(folder, **options):
    rows = list(read_source(SourceConfig(format="parquet", path=str(folder), **options)))
    return [row for row in rows if isinstance(row, ImageRecord)], [row for row in rows if not isinstance(row, ImageRecord)]


def of_source(folder, **options):
    return [row for table in iter_images(ImagesConfig(source="parquet", path=str(folder), **options)) for row in table.to_pylist()]


@pytest.mark.parametrize("binary", [pa.binary(), pa.large_binary()])
def test_hugging_faces_struct_of_bytes_and_path_is_an_image(tmp_path, people, binary):
    (tmp_path / "t" / "crops").mkdir(parents=True)
    (tmp_path / "t" / "crops" / "c.jpg").write_bytes(people[2][0])
    images = [
        {"bytes": people[0][0], "path": "former/name.jpg"},
        {"bytes": people[1][0], "path": None},
        {"bytes": None, "path": "crops/c.jpg"},
    ]
    struct = pa.struct([("bytes", binary), ("path", pa.string())])
    write(tmp_path / "t", image=pa.array(images, struct), person_id=[1, 2, 3])
    rows, skipped = read(tmp_path / "t")
    assert not skipped
    assert [row.data or row.store.read_bytes(row.name) for row in rows] == [person[0] for person in people[:3]]
    assert [row["image"] for row in of_source(tmp_path / "t")] == [person[0] for person in people[:3]]
    assert read_table(tmp_path / "t", IMAGES, columns=["image_id", "image"])["image"].to_pylist() == [people[0][0], people[1][0], None]


def test_images_without_ids_are_named_by_their_struct(tmp_path, people):
    images = [{"bytes": people[index % 48][0], "path": f"{index}.jpg" if index % 50 else None} for index in range(150)]
    pq.write_table(pa.table({"image": pa.array(images, STRUCT), "label": [3] * 150}), tmp_path / "train-0.parquet")
    rows, skipped = read(tmp_path, columns={"person_id": "label"})
    assert not skipped
    assert [row.image_id for row in rows] == [f"{index}.jpg" if index % 50 else f"train-0.parquet#{index}" for index in range(150)]
    assert {row.person_id for row in rows} == {3}
    pq.write_table(pa.table({"image": [people[0][0]]}), tmp_path / "train-0.parquet")
    with refused(DataError, "image_id"):
        read(tmp_path)


def test_a_struct_of_bytes_is_known_by_its_tables_state_and_one_of_paths_is_not(tmp_path, people):
    write(tmp_path / "bytes", image=pa.array([{"bytes": people[0][0], "path": None}] * 3, STRUCT))
    write(tmp_path / "paths", image=pa.array([{"bytes": None, "path": "a.jpg"}] * 3, STRUCT))
    inline = [image_listing(ImagesConfig(source="parquet", path=str(tmp_path / name))).pieces[0].inline for name in ("bytes", "paths")]
    assert inline == [True, False]


def test_a_struct_that_is_no_image_or_null_is_refused_or_counted(tmp_path, people):
    write(tmp_path / "other", image=pa.array([{"height": 3}] * 3))
    for reader in (read, of_source):
        with refused(DataError, "column image ", "binary"):
            reader(tmp_path / "other")
    write(tmp_path / "null", image=pa.array([None, {"bytes": None, "path": None}, {"bytes": people[0][0], "path": None}], STRUCT))
    assert [row.data is None for row in read(tmp_path / "null")[0]] == [True, True, False]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array(["0001", "2", " 3 "]), [1, 2, 3]),
        (pa.array(["1", "2", "3"]).dictionary_encode(), [1, 2, 3]),
        (pa.array([1.0, None, 3.0]), [1, None, 3]),
        (pa.array([1.0, math.nan, 3.0]), [1, None, 3]),
        (pa.array([1, 2, 3], pa.uint8()), [1, 2, 3]),
        (pa.nulls(3), [None] * 3),
    ],
)
def test_ids_in_every_writing(tmp_path, people, ids, expected):
    write(
        tmp_path / "t", image=[people[0][0]] * 3, person_id=ids, camera_id=ids, split=pa.array(["Train", "val", None]).dictionary_encode()
    )
    rows, skipped = read(tmp_path / "t")
    assert not skipped
    assert [row.person_id for row in rows] == [row.camera_id for row in rows] == expected
    assert [row.split for row in rows] == ["train", "val", None]


@pytest.mark.parametrize(
    ("ids", "named"), [(["1", "p2", "3"], "'p2'"), ([1.0, 1.5, 3.0], "1.5"), ([True, None, None], "True"), ([math.inf, 2.0, 3.0], "inf")]
)
def test_an_id_that_is_no_number_costs_its_row_and_is_named(tmp_path, people, ids, named):
    write(tmp_path / "t", image=[people[0][0]] * 3, person_id=ids)
    rows, (skipped,) = read(tmp_path / "t")
    assert len(rows) == 2
    assert (skipped.reason, skipped.detail) == ("bad_annotation", f"person_id is {named}, not a whole number")


def test_floats_with_gaps_are_numbers_to_every_reader_and_half_ones_are_refused(tmp_path, people):
    write(tmp_path / "t", image=[people[0][0]] * 3, person_id=[1.0, math.nan, 3.0], width=[32.0, None, math.nan])
    assert [row["person_id"] for row in of_source(tmp_path / "t")] == [1, None, 3]
    write(tmp_path / "t", image=[people[0][0]] * 3, person_id=[1.0, 1.5, 3.0])
    with refused(DataError, "person_id", "int64", "1.5"):
        of_source(tmp_path / "t")


def test_measures_of_another_program_do_not_matter_to_an_ingest(tmp_path, people):
    write(tmp_path / "t", image=[people[0][0]] * 3, width=["wide"] * 3, height=[1.5] * 3, image_sha256=[1, 2, 3])
    assert len(read(tmp_path / "t")[0]) == 3


def test_a_path_that_no_filesystem_knows_costs_its_row(tmp_path):
    write(tmp_path / "t", path=["nosuch://bucket/a.jpg", "s3:///", "http://[/x.jpg"])
    rows, skipped = read(tmp_path / "t")
    assert len(rows) + len(skipped) == 3
    assert {row.reason for row in skipped} == {"unreadable_file"}


def test_a_column_that_is_there_twice_is_refused_by_name(tmp_path, people):
    table = pa.table([["0"], [people[0][0]], [1], [2]], names=["image_id", "image", "person_id", "person_id"])
    pq.write_table(table, tmp_path / "0.parquet")
    for reader in (read, of_source):
        with refused(DataError, "0.parquet", "person_id"):
            reader(tmp_path)


def test_a_caption_that_is_null_is_a_failed_one_whatever_its_status_says(tmp_path, people):
    write(tmp_path / "images", image=[people[0][0]] * 3)
    columns = {
        "caption_id": list("abc"),
        "image_id": list("012"),
        "kind": ["human"] * 3,
        "status": ["ok"] * 3,
        "text": ["One.", None, "Three."],
    }
    (tmp_path / "captions").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "captions" / "0.parquet")
    assert [(caption["status"], caption["reason"]) for row in read(tmp_path)[0] for caption in row.captions] == [
        ("ok", None),
        ("failed", "null_caption"),
        ("ok", None),
    ]


def test_a_split_that_is_a_category_selects_its_rows(tmp_path, people):
    write(tmp_path / "t", image=[people[0][0]] * 3, split=pa.array(["train", "val", "train"]).dictionary_encode())
    assert [row["image_id"] for row in of_source(tmp_path / "t", split="train")] == ["0", "2"]


@pytest.mark.slow
@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 0.9999), st.binary(min_size=1, max_size=40)), min_size=1, max_size=6), st.floats(0, 1))
def test_any_damage_ends_in_rows_or_one_sentence(tmp_path, people, damage, keep):
    write(tmp_path / "good", image=pa.array([{"bytes": people[0][0][:600], "path": "é"}] * 3, STRUCT), person_id=["1", "2", "3"])
    data = bytearray((tmp_path / "good" / "0.parquet").read_bytes())
    for place, junk in damage:
        at = int(place * len(data))
        data[at : at + len(junk)] = junk
    (tmp_path / "bad").mkdir(exist_ok=True)
    (tmp_path / "bad" / "0.parquet").write_bytes(data[: int(len(data) * keep)] if keep < 0.3 else data)
    for reader in (read, of_source):
        with suppress(ReidRayError):
            reader(tmp_path / "bad")


def test_tables_without_structs_and_gaps_are_not_touched():
    table = pa.table({"image_id": ["a"], "image": [b"x"], "person_id": [3]})
    assert conform(table, IMAGES, origin="t").select(["image_id", "image", "person_id"]).to_pylist() == table.to_pylist()
