"""What is known of a folder's images, from their paths or a table beside them: the same to every job that reads the folder."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusals import refused

from reid_ray.config.common import ImagesConfig
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.sources import image_listing, iter_images
from reid_ray.errors import DataError
from reid_ray.records import IMAGES

PATTERN = r"(?P<zone>[^/]+)/(?P<camera>[^/_]+)_(?P<person_id>\d+)_(?P<time>\d{8}T\d{6})"
NAMES = [
    "hall/gateB_0001_20260301T081500.jpg",
    "hall/gateA_0002_20260301T081510.jpg",
    "yard/north_0001_20260301T091500.jpg",
]


def pictures(folder, names):
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(folder / name, "JPEG")
    return folder


def by_index(folder, *, source="folder", **options):
    """Rows as index and embed read them."""
    config = ImagesConfig(source=source, path=str(folder), **options)
    listing = image_listing(config, carry=True)
    return [row for table in iter_images(config, listing=listing) for row in table.to_pylist()], listing


def by_ingest(folder, out, *, format="folder", limit=None, **options):
    source = {"format": format, "path": str(folder), **options}
    config = {"source": source, "output": {"path": str(out), "if_exists": "replace"}, "load": {"processes": 0}, "limit": limit}
    manifest = run_ingest(IngestJob.model_validate(config))
    return pq.read_table(out / "images").to_pylist(), pq.read_table(out / "failures").to_pylist(), manifest


def told(rows, *columns):
    return [tuple(row[name] for name in columns) for row in rows]


def test_named_groups_are_the_same_columns_to_ingest_and_to_whoever_reads_the_folder(tmp_path):
    folder = pictures(tmp_path / "crops", NAMES)
    (folder / "hall" / "odd.jpg").write_bytes(b"x")
    rows, listing = by_index(folder, pattern=PATTERN, time_zone="Europe/Berlin")
    assert listing.further == ("zone", "camera", "time")
    fine, odd = [row for row in rows if row["image"]], [row for row in rows if not row["image"]]
    expected = [
        ("hall", "gateA", 1, 2, datetime(2026, 3, 1, 7, 15, 10, tzinfo=UTC)),
        ("hall", "gateB", 2, 1, datetime(2026, 3, 1, 7, 15, tzinfo=UTC)),
        ("yard", "north", 3, 1, datetime(2026, 3, 1, 8, 15, tzinfo=UTC)),
    ]
    columns = ("zone", "camera", "camera_id", "person_id", "time")
    assert told(fine, *columns) == expected
    assert [row["unread"].partition(":")[0] for row in odd] == ["pattern_does_not_match"]
    written, failures, manifest = by_ingest(folder, tmp_path / "out", pattern=PATTERN, time_zone="Europe/Berlin")
    assert told(written, *columns) == expected
    assert told(failures, "image_id", "reason") == [("hall/odd.jpg", "pattern_does_not_match")]
    assert manifest["facts"]["own_columns"] == ["zone", "camera", "time"]
    again, _ = by_index(tmp_path / "out" / "images", source="parquet")
    assert told(again, *columns) == expected


def test_cameras_are_numbered_over_the_whole_folder_whatever_part_of_it_is_read(tmp_path):
    names = [f"{camera}/{number}.jpg" for camera in ("gateC", "gateA", "gateB") for number in range(40)]
    folder = pictures(tmp_path / "crops", names)
    options = {"pattern": r"(?P<camera>[^/]+)/"}
    whole, listing = by_index(folder, **options)
    assert {row["camera"]: row["camera_id"] for row in whole} == {"gateA": 1, "gateB": 2, "gateC": 3}
    pieces = list(listing.pieces)
    random.Random(0).shuffle(pieces)
    by_parts = {row["image_id"]: row["camera_id"] for piece in pieces for table in piece.tables() for row in table.to_pylist()}
    assert by_parts == {row["image_id"]: row["camera_id"] for row in whole}
    some, _ = by_index(folder, limit=3, **options)
    few, _, _ = by_ingest(folder, tmp_path / "out", limit=3, **options)
    assert told(some, "camera", "camera_id") == told(few, "camera", "camera_id") == [("gateA", 1)] * 3
    numbered = pictures(tmp_path / "numbered", ["10/a.jpg", "2/a.jpg"])
    assert sorted(told(by_index(numbered, **options)[0], "camera", "camera_id")) == [("10", 10), ("2", 2)]


def test_a_table_of_camera_names_alone_is_numbered_over_all_its_files(tmp_path):
    data = (pictures(tmp_path / "crops", NAMES) / NAMES[0]).read_bytes()
    for number, names in enumerate((["gateC", None], ["gateA", "gateC"])):
        table = {"image_id": [f"{number}-{at}" for at in range(2)], "image": [data] * 2, "cam" if number < 2 else "": names}
        (tmp_path / "t").mkdir(exist_ok=True)
        pq.write_table(pa.table(table), tmp_path / "t" / f"{number}.parquet")
    written, _, _ = by_ingest(tmp_path / "t", tmp_path / "out", format="parquet", columns={"camera": "cam"})
    assert told(written, "camera", "camera_id") == [("gateC", 2), (None, None), ("gateA", 1), ("gateC", 2)]
    renamed = pq.read_table(tmp_path / "t").rename_columns({"cam": "camera"})
    pq.write_table(renamed, tmp_path / "own.parquet")
    assert told(by_index(tmp_path / "own.parquet", source="parquet")[0], "camera", "camera_id") == told(written, "camera", "camera_id")


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("20260301T081500Z", {}, (8, 15, 0)),
        ("20260301T081500", {"time_zone": "UTC"}, (8, 15, 0)),
        ("2026-03-01 08.15.07", {"time_format": "%Y-%m-%d %H.%M.%S", "time_zone": "America/New_York"}, (13, 15, 7)),
        ("1772352900", {"time_format": "epoch_s"}, (8, 15, 0)),
        ("1772352900000", {"time_format": "epoch_ms"}, (8, 15, 0)),
        ("2026-03-01T08:15:00+05:30", {"time_zone": "UTC"}, (2, 45, 0)),  # what a time says of its zone counts
    ],
)
def test_times_are_read_in_each_writing(tmp_path, text, options, expected):
    folder = pictures(tmp_path / "crops", [f"{text}.jpg"])
    rows, _ = by_index(folder, pattern=r"(?P<time>.+)\.jpg", **options)
    assert told(rows, "time") == [(datetime(2026, 3, 1, *expected, tzinfo=UTC),)]


def test_a_time_that_is_none_costs_its_row_and_one_without_a_zone_is_refused_with_the_remedy(tmp_path):
    folder = pictures(tmp_path / "crops", ["20260301T081500Z.jpg", "noon.jpg"])
    pattern = r"(?P<time>.+)\.jpg"
    rows, _ = by_index(folder, pattern=pattern)
    assert [(row["image"] is None, (row["unread"] or "").partition(":")[0]) for row in rows] == [
        (False, ""),
        (True, "pattern_does_not_match"),
    ]
    pictures(folder, ["20260301T081500.jpg"])
    with refused(DataError, "20260301T081500", "time_zone"):
        by_index(folder, pattern=pattern)


CSV = "image,zone,floor,heat,indoor,seen_at,code\n" + "\n".join(
    f"{name},{zone},{floor},{heat},{indoor},{seen},{code}"
    for name, zone, floor, heat, indoor, seen, code in [
        (NAMES[0], "café", 1, "1.5", "true", "2026-03-01T08:15:00Z", "007"),
        (NAMES[1], "hall", -2, "2", "false", "2026-03-01 09:15:00+01:00", "010"),
        (NAMES[2].rpartition("/")[2], "yard", 0, "-3e2", "true", "2026-03-01T08:15Z", "1"),
    ]
)


@pytest.mark.parametrize(
    ("delimiter", "encoding", "options"),
    [
        (",", "utf-8", {}),
        (";", "utf-8-sig", {}),
        ("\t", "latin-1", {"table_encoding": "latin-1"}),
        ("|", "utf-16", {"table_encoding": "utf-16"}),
    ],
)
def test_a_csv_beside_the_folder_is_read_whatever_its_delimiter_and_encoding(tmp_path, delimiter, encoding, options):
    folder = pictures(tmp_path / "crops", NAMES)
    (tmp_path / "own.csv").write_bytes(CSV.replace(",", delimiter).encode(encoding))
    rows, listing = by_index(folder, table=str(tmp_path / "own.csv"), **options)
    moment = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
    by_id = {row["image_id"]: row for row in rows}
    expected = [("café", 1, 1.5, True, moment, "007"), ("hall", -2, 2.0, False, moment, "010"), ("yard", 0, -300.0, True, moment, "1")]
    assert told([by_id[name] for name in NAMES], "zone", "floor", "heat", "indoor", "seen_at", "code") == expected
    assert listing.told == {"images_without_row": 0, "rows_without_image": 0}


def test_a_row_that_is_not_as_wide_as_its_header_costs_its_own_image_and_is_counted_with_its_number(tmp_path, capsys):
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    folder = pictures(tmp_path / "crops", names)
    (tmp_path / "own.csv").write_text('zone,image,floor\n"a\nhall",a.jpg,1\nyard,b.jpg\n\nhall,c.jpg,2,3\nyard,d.jpg,4\nyard')
    rows, listing = by_index(folder, table=str(tmp_path / "own.csv"))
    assert told(rows, "image_id", "zone", "floor", "unread") == [
        ("a.jpg", "a\nhall", 1, None),
        ("b.jpg", None, None, "bad_annotation: row 3 of the table has 2 columns, but its header has 3"),
        ("c.jpg", None, None, "bad_annotation: row 4 of the table has 4 columns, but its header has 3"),
        ("d.jpg", "yard", 4, None),
    ]
    assert listing.told == {"images_without_row": 0, "rows_without_image": 1, "rows_not_whole": 3}
    by_ingest(folder, tmp_path / "out", table=str(tmp_path / "own.csv"))
    assert "3 rows of the table that are not as wide as its header" in capsys.readouterr().out


def test_a_csv_in_another_encoding_than_said_or_whose_every_row_is_broken_is_refused_with_the_remedy(tmp_path):
    folder = pictures(tmp_path / "crops", NAMES)
    table = tmp_path / "own.csv"
    table.write_bytes(CSV.encode("latin-1"))
    with refused(DataError, str(table), "table_encoding"):
        by_index(folder, table=str(table))
    table.write_text("image,zone,time\na,b\nc,d\n")
    with refused(DataError, str(table), "row 2 has 2 columns", "its header has 3"):
        by_index(folder, table=str(table))
    table.write_text("zone\nhall\n")
    with refused(DataError, str(table), "table_key", "zone"):
        by_index(folder, table=str(table))
    table.write_text("image,zone,zone\na,b,c\n")
    with refused(DataError, str(table), "zone"):
        by_index(folder, table=str(table))
    with refused(DataError, str(tmp_path / "no.csv")):
        by_index(folder, table=str(tmp_path / "no.csv"))


def test_rows_and_images_that_do_not_find_each_other_are_counted_and_those_that_contradict_fail(tmp_path):
    folder = pictures(tmp_path / "crops", ["a/1.jpg", "a/2.jpg", "b/2.jpg", "b/3.jpg", "b/4.jpg", "b/5.jpg"])
    lines = ["a/1.jpg,hall", "2.jpg,hall", "b/3.jpg,hall", "b/3.jpg,hall", "b/4.jpg,hall", "b/4.jpg,yard", "gone.jpg,hall", ",hall"]
    (tmp_path / "own.csv").write_text("path,zone\n" + "\n".join(lines) + "\n")
    rows, listing = by_index(folder, table=str(tmp_path / "own.csv"))
    by_id = {row["image_id"]: (row["zone"], (row["unread"] or "").partition(":")[0]) for row in rows}
    assert by_id == {
        "a/1.jpg": ("hall", ""),
        "a/2.jpg": (None, "bad_annotation"),  # two images have the name 2.jpg
        "b/2.jpg": (None, "bad_annotation"),
        "b/3.jpg": ("hall", ""),  # said twice, alike
        "b/4.jpg": (None, "bad_annotation"),  # said twice, and not alike
        "b/5.jpg": (None, ""),
    }
    assert listing.told == {"images_without_row": 1, "rows_without_image": 2}
    written, failures, manifest = by_ingest(folder, tmp_path / "out", table=str(tmp_path / "own.csv"))
    assert told(written, "image_id", "zone") == [(name, zone) for name, (zone, reason) in by_id.items() if not reason]
    assert len(failures) == 3
    assert manifest["facts"]["table"] == listing.told
    (tmp_path / "other.csv").write_text("path,zone\nx.jpg,hall\n")
    with refused(DataError, "other.csv", "x.jpg", "a/1.jpg", "table_key"):
        by_index(folder, table=str(tmp_path / "other.csv"))


def test_a_table_that_lies_in_the_folder_is_no_image_that_failed(tmp_path):
    folder = pictures(tmp_path / "crops", NAMES)
    (folder / "own.csv").write_text("image;camera\n" + "".join(f"{name};cam{at}\n" for at, name in enumerate(NAMES)))
    written, failures, _ = by_ingest(folder, tmp_path / "out", table=str(folder / "own.csv"))
    assert not failures
    assert sorted(told(written, "camera", "camera_id")) == [("cam0", 1), ("cam1", 2), ("cam2", 3)]


def test_a_parquet_beside_the_folder_keeps_its_types_and_naive_times_need_a_zone(tmp_path):
    folder = pictures(tmp_path / "crops", NAMES)
    naive = pa.array([datetime(2026, 3, 1, 9, 15)] * 3, pa.timestamp("ns"))
    pq.write_table(pa.table({"key": NAMES, "zone": [1, 2, 3], "time": naive}), tmp_path / "own.parquet")
    options = {"table": str(tmp_path / "own.parquet"), "table_key": "key"}
    with refused(DataError, "own.parquet", "time", "time_zone"):
        by_index(folder, **options)
    rows, _ = by_index(folder, time_zone="Europe/Berlin", **options)
    assert told(rows, "time") == [(datetime(2026, 3, 1, 8, 15, tzinfo=UTC),)] * 3


def test_what_pattern_and_table_both_say_is_refused_and_so_is_a_name_that_means_something_else(tmp_path):
    folder = pictures(tmp_path / "crops", NAMES)
    (tmp_path / "own.csv").write_text("image,zone,width,status\n" + "".join(f"{name},z,8,on\n" for name in NAMES))
    with refused(DataError, "zone", "pattern"):
        by_index(folder, table=str(tmp_path / "own.csv"), pattern=r"(?P<zone>[^/]+)/", own=["zone"])
    with refused(DataError, "own.csv", "width"):
        by_index(folder, table=str(tmp_path / "own.csv"))
    with refused(DataError, "own.csv", "status"):
        by_index(folder, table=str(tmp_path / "own.csv"), own=["status"])
    rows, listing = by_index(folder, table=str(tmp_path / "own.csv"), own=["zone"])
    assert listing.further == ("zone",)
    assert {row["zone"] for row in rows} == {"z"}
    for wrong in ({"pattern": r"(?P<embedding>.)"}, {"pattern": "x"}, {"time_zone": "Mars"}, {"time_format": "iso"}, {"table_key": "a"}):
        with pytest.raises(ValueError) as said:  # noqa: PT011 - pydantic's
            ImagesConfig(source="folder", path="x", **wrong)
        assert next(iter(wrong)) in str(said.value)
    assert ImagesConfig.model_validate(ImagesConfig().model_dump()) == ImagesConfig()  # as a manifest has it
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's
        SourceConfig(format="rstpreid", path="x", pattern=PATTERN)


def test_further_columns_of_a_table_of_other_origin_are_carried_or_refused_by_name(tmp_path):
    data = (pictures(tmp_path / "crops", NAMES) / NAMES[0]).read_bytes()
    table = pa.table(
        {
            "image_id": ["a", "b", "c"],
            "image": [data] * 3,
            "zone": pa.array(["x", "y", None]).dictionary_encode(),
            "when": ["2026-03-01T08:15Z", "no", None],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t").mkdir()
    pq.write_table(table, tmp_path / "t" / "0.parquet")
    written, failures, _ = by_ingest(tmp_path / "t", tmp_path / "out", format="parquet", columns={"time": "when"})
    assert told(written, "zone", "time") == [("x", datetime(2026, 3, 1, 8, 15, tzinfo=UTC)), (None, None)]
    assert told(failures, "image_id", "reason") == [("b", "bad_annotation")]
    pq.write_table(table.append_column("boxes", pa.array([[1, 2]] * 3)), tmp_path / "t" / "1.parquet")
    for read in (
        lambda **own: by_ingest(tmp_path / "t", tmp_path / "out", format="parquet", **own),
        lambda **own: by_index(tmp_path / "t", source="parquet", **own),
    ):
        with refused(DataError, "boxes", "1.parquet", "own"):
            read()
        with refused(DataError, "zona"):
            read(own=["zona"])
        assert len([row for row in read(own=["zone"])[0] if row["image_id"] == "a" and row["zone"] == "x"]) >= 1
    assert list(read(own=[])[0][0]) == [*IMAGES.names, "unread"]
