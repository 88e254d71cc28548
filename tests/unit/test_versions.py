"""Everything that is read again says which format it is of: a newer one is refused in a sentence, what has none is read as it is."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from layouts import FILE, todays_layouts
from refusals import refused

from reid_ray import versions
from reid_ray.data.failures import FAILURES
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, EDITS, EMBEDDINGS, HITS, IMAGES, REFERENCES, SEEN, SEGMENTS, table_of
from reid_ray.train.masking.noise_export import NOISE

SCHEMAS = {
    "images": IMAGES,
    "captions": CAPTIONS,
    "segments": SEGMENTS,
    "references": REFERENCES,
    "edits": EDITS,
    "embeddings": EMBEDDINGS,
    "hits": HITS,
    "failures": FAILURES,
    "noise": NOISE,
    "seen": SEEN,
}


@pytest.mark.parametrize("kind", versions.FORMATS)
def test_todays_number_and_every_older_one_that_is_read_pass(kind):
    for number in range(versions.FORMATS[kind].oldest, versions.number_of(kind) + 1):
        assert versions.check(kind, number, origin="there") == number
    assert versions.check_json(kind, versions.numbered(kind), origin="there") == versions.number_of(kind)


@pytest.mark.parametrize("kind", versions.FORMATS)
def test_a_newer_number_is_refused_by_file_both_numbers_and_what_to_do(kind):
    newer = versions.number_of(kind) + 1
    with refused(DataError, "runs/there", f"format {newer}", f"{newer - 1}", "upgrade reid_ray"):
        versions.check(kind, newer, origin="runs/there")


def test_what_has_no_number_is_of_format_0():
    assert versions.check_json("output", {"job": "train"}, origin="there") == 0
    assert versions.check_table(None, origin="there") == versions.check_table({b"pandas": b"{}"}, origin="there") == 0


def test_a_format_that_is_read_no_more_names_the_migration(monkeypatch):
    monkeypatch.setitem(versions.FORMATS, "calibration", versions.Format("a calibration", ("one", "two"), oldest=2))
    with refused(DataError, "there", "format 1", "reid-ray migrate"):
        versions.check("calibration", 1, origin="there")


@pytest.mark.parametrize("found", ["1", 1.0, True, -1, [1]])
def test_a_number_that_is_none_is_refused_as_damage(found):
    with refused(DataError, "there", "format"):
        versions.check("output", found, origin="there")


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_table_on_disk_says_its_kind_and_number(kind, tmp_path):
    assert set(SCHEMAS) | {"queries"} == set(versions.TABLES)
    pq.write_table(SCHEMAS[kind].empty_table(), tmp_path / "table.parquet")
    metadata = pq.read_schema(tmp_path / "table.parquet").metadata
    assert versions.table_format(metadata, origin="there") == (kind, versions.number_of(kind))


def test_a_kind_of_table_that_only_a_newer_version_knows_is_refused():
    with refused(DataError, "there", "gaits", "upgrade reid_ray"):
        versions.check_table({versions.TABLE_FIELD: b"gaits 1"}, origin="there")


def test_the_number_of_a_table_is_no_part_of_its_columns():
    assert table_of(IMAGES, []).schema.equals(IMAGES.remove_metadata())


@pytest.mark.slow
def test_no_layout_changes_without_its_number(tmp_path):
    known, todays = json.loads(FILE.read_text(encoding="utf-8")), todays_layouts(tmp_path)
    assert set(todays) == set(versions.FORMATS)
    for kind, layout in todays.items():
        name = f"{kind} {versions.number_of(kind)}"
        assert name in known, f"run python tests/shared/layouts.py, which writes down the layout of {name}"
        assert layout == known[name], f"the layout of {kind} has changed: raise its number in reid_ray/versions.py, and say how it is read"
    assert {f"{kind} {n}" for kind in todays for n in range(1, versions.number_of(kind) + 1)} == set(known)
