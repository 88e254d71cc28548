"""LMDB files read without the library, against the library; and what cut and damaged ones cost: entries, counted, never the process."""

import json
import os
import random
import shutil

import lmdb
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid_ray.data.containers.lmdb_pages import LmdbFile
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import ImageRecord, read_source
from reid_ray.errors import DataError, ReidRayError

LIMIT = 1 << 20


def write(folder, pairs, *, transactions=1, remove=()):
    with lmdb.open(str(folder), map_size=1 << 26, max_dbs=2) as environment:
        pairs = list(pairs)
        for part in range(transactions):
            with environment.begin(write=True) as transaction:
                for key, value in pairs[part::transactions]:
                    transaction.put(key, value)
        with environment.begin(write=True) as transaction:
            for key in remove:
                transaction.delete(key)
    return folder / "data.mdb"


def read(file):
    with LmdbFile(file, LIMIT) as database:
        return list(database.items())


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.binary(min_size=1, max_size=511), st.binary(max_size=9000), max_size=80), st.integers(1, 3), st.randoms())
def test_every_entry_comes_as_the_library_gives_it(tmp_path_factory, entries, transactions, rng):
    folder = tmp_path_factory.mktemp("lmdb")
    gone = [key for key in entries if rng.random() < 0.2]
    file = write(folder, entries.items(), transactions=transactions, remove=gone)
    left = sorted((key, value) for key, value in entries.items() if key not in gone)
    assert [(entry.key, entry.value) for entry in read(file)] == left
    with LmdbFile(file, LIMIT) as database:
        assert database.entries == len(left)
        assert all(database.get(key).value == value for key, value in left)
        assert all(database.get(key) is None for key in [*gone, b"", b"x" * 600, b"\xff" * 512])
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_deep_tree_and_long_values_come_whole(tmp_path):
    rng = random.Random(1)
    entries = {b"%08d" % rng.randrange(10**8): rng.randbytes(rng.choice([0, 10, 3000, 60_000])) for _ in range(3000)}
    file = write(tmp_path / "db", entries.items(), transactions=4)
    assert {entry.key: entry.value for entry in read(file)} == entries
    with LmdbFile(file, 1000) as database:  # values beyond the limit come cut, to fail as too large
        assert {len(entry.value) for entry in database.items()} == {0, 10, 1001}


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\0" * 20_000, b"PAR1" * 5000])
def test_what_is_no_lmdb_is_refused_by_name(tmp_path, content):
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(DataError, match=r"data.mdb: is no LMDB"):
        read(tmp_path / "data.mdb")


def test_tables_of_other_kinds_are_refused_and_sub_databases_are_named(tmp_path):
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20, max_dbs=2) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"a", b"1", db=environment.open_db(b"images", transaction))
        transaction.put(b"b", b"2")
    assert [(entry.key, entry.value, bool(entry.problem)) for entry in read(tmp_path / "db" / "data.mdb")] == [
        (b"b", b"2", False),
        (b"images", None, True),
    ]


@pytest.fixture(scope="module")
def crops(tmp_path_factory, people):
    """An LMDB of 200 crops, large enough for branch, leaf and overflow pages."""
    folder = tmp_path_factory.mktemp("crops") / "lmdb"
    write(folder, ((b"01_01_0001_%08d" % index, people[index % 48][0] + os.urandom(3000)) for index in range(200)), transactions=3)
    return (folder / "data.mdb").read_bytes()


def luperson(tmp_path, data, format="luperson"):
    file = tmp_path / "lmdb" / "data.mdb"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return list(read_source(SourceConfig(format=format, path=str(tmp_path))))


@pytest.mark.parametrize("share", [0.0025, 0.1, 0.5, 0.9, 0.97])
def test_of_a_file_that_is_cut_the_good_entries_are_read_and_the_rest_is_counted(tmp_path, crops, share):
    rows = luperson(tmp_path, crops[: max(int(len(crops) * share), 5000)])
    good = {row.image_id for row in rows if isinstance(row, ImageRecord)}
    failed = [row for row in rows if not isinstance(row, ImageRecord)]
    assert len(good) < 200
    assert {row.reason for row in failed} <= {"damaged_entry", "broken_lmdb"}
    lost = next((int(row.detail.split()[0]) for row in failed if row.reason == "broken_lmdb"), 0)
    assert len(good) + sum(row.reason == "damaged_entry" for row in failed) + lost == 200
    assert any("beyond the end of the file" in row.detail or "cut by the end" in row.detail for row in failed)


def test_a_stretch_of_zeros_costs_the_entries_in_it(tmp_path, crops):
    data = bytearray(crops)
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    rows = luperson(tmp_path, bytes(data))
    good = [row for row in rows if isinstance(row, ImageRecord)]
    assert 30 < len(good) < 200
    assert len(rows) > len(good)


@pytest.mark.slow
@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 0.9999), st.binary(min_size=1, max_size=64)), min_size=1, max_size=30), st.booleans())
def test_any_damage_ends_in_rows_or_one_sentence(tmp_path, crops, damage, in_front):
    data = bytearray(crops)
    for place, junk in damage:
        at = int(place * (20_000 if in_front else len(data)))
        data[at : at + len(junk)] = junk
    try:
        rows = luperson(tmp_path, bytes(data[: len(crops)]))
    except ReidRayError:
        return
    assert len(rows) <= 400


def test_captions_of_names_that_no_key_can_be_are_counted_as_missing(trees, tmp_path):
    database = trees.luperson_lmdb()
    folder = trees.luperson_mllm(images=False)
    file = folder / "Ts-qwen.json"
    captions = json.loads(file.read_text())
    names = [".jpg", "x" * 600 + ".jpg", "\0.jpg", "\ud800.jpg"]
    file.write_text(json.dumps({**captions, **dict.fromkeys(names, "A woman.")}))
    rows = list(read_source(SourceConfig(format="luperson_mllm", path=str(folder), images=str(database))))
    assert sum(isinstance(row, ImageRecord) for row in rows) == 24
    assert {row.image_id for row in rows if not isinstance(row, ImageRecord)} == set(names)
