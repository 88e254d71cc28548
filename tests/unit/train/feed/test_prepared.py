"""Rows of an Arrow file by their number, against the whole table in memory."""

from __future__ import annotations

import os
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.train.feed import prepared
from reid_ray.train.feed.pictures import PictureStore
from reid_ray.train.feed.prepared import RowFile, texts_of, write_rows

SCHEMA = pa.schema([("text", pa.string()), ("rewrites", pa.list_(pa.string())), ("number", pa.int64()), ("flag", pa.bool_())])


@pytest.fixture
def table():
    rows = range(700)
    return pa.table(
        [[str(n) for n in rows], [[f"{n} again"] * (n % 3) for n in rows], list(rows), [n % 2 == 0 for n in rows]], schema=SCHEMA
    )


@pytest.fixture(params=["a file", "a folder of two files"])
def file(request, table, tmp_path):
    """In batches of uneven sizes, one of them empty."""

    def write(path, start, sizes):
        starts = start + np.cumsum([0, *sizes])
        parts = (table.slice(at, size) for at, size in zip(starts[:-1].tolist(), sizes, strict=True))
        return write_rows(path, SCHEMA, parts)

    if request.param == "a file":
        assert write(tmp_path / "t.arrow", 0, [1, 0, 99, 300, 250, 50]) == 700
    else:
        (tmp_path / "t.arrow").mkdir()
        assert (
            write(tmp_path / "t.arrow" / "00000.arrow", 0, [1, 0, 99]) + write(tmp_path / "t.arrow" / "00001.arrow", 100, [550, 50]) == 700
        )
        (tmp_path / "t.arrow" / "00000.json").write_text("facts of its making")
    return RowFile(tmp_path / "t.arrow")


def test_any_rows_in_any_order_are_those_of_the_table(file, table):
    draw = np.random.default_rng(0)
    for count in (0, 1, 5, 700, 2000):
        rows = draw.integers(0, 700, count)
        assert file.take(rows).to_pylist() == table.take(pa.array(rows)).to_pylist()
    assert file.take(np.arange(700)[::-1]).to_pylist() == table.to_pylist()[::-1]


def test_columns_and_lengths_are_the_tables(file, table):
    assert len(file) == 700
    assert file.column("number").tolist() == table["number"].to_pylist()
    assert file.column("flag").tolist() == table["flag"].to_pylist()
    assert file.lengths("rewrites").tolist() == [len(row) for row in table["rewrites"].to_pylist()]
    assert list(texts_of(file)) == [*table["text"].to_pylist(), *(text for row in table["rewrites"].to_pylist() for text in row)]


def test_columns_of_every_kind_that_is_prepared_are_taken_with_their_nulls(tmp_path):
    """Lists of records, bytes, bits, numbers of each width; against Arrow's own take. Some record batches have nulls, some none."""
    draw = np.random.default_rng(1)
    part = pa.struct([pa.field("start", pa.int32()), pa.field("name", pa.string()), pa.field("sure", pa.bool_())])
    kinds = [
        pa.string(),
        pa.binary(),
        pa.bool_(),
        pa.int8(),
        pa.float64(),
        pa.binary(5),
        part,
        pa.list_(part),
        pa.list_(pa.list_(pa.int16())),
    ]

    def value(kind, nulls):
        if nulls and draw.random() < 0.3:
            return None
        if pa.types.is_struct(kind):
            return {field.name: value(field.type, nulls) for field in kind}
        if pa.types.is_list(kind):
            return [value(kind.value_type, nulls) for _ in range(draw.integers(0, 4))]
        if pa.types.is_string(kind):
            return "ä" * int(draw.integers(0, 9))
        if pa.types.is_boolean(kind):
            return bool(draw.integers(2))
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return int(draw.integers(-100, 100))
        return draw.bytes(5 if pa.types.is_fixed_size_binary(kind) else int(draw.integers(0, 9)))

    schema = pa.schema([pa.field(str(number), kind) for number, kind in enumerate(kinds)])
    parts = [
        pa.table([pa.array([value(kind, nulls) for _ in range(40)], kind) for kind in kinds], schema=schema)
        for nulls in (True, False, True)
    ]
    write_rows(tmp_path / "t.arrow", schema, parts)
    for rows in (draw.integers(0, 120, 300), np.arange(120), np.r_[5:90, 3:8, 119, 119]):
        found = RowFile(tmp_path / "t.arrow").take(rows)
        found.validate(full=True)
        assert found.equals(pa.concat_tables(parts).combine_chunks().take(pa.array(rows)), check_metadata=True)


def test_rows_spread_over_five_hundred_record_batches_cost_what_those_of_one_do(tmp_path):
    """Arrow's take of each record batch's rows costs forty times as much."""

    def cpu_seconds(name, each):
        whole = pa.table([[str(n) for n in range(500)], [["again"]] * 500, list(range(500)), [True] * 500], schema=SCHEMA)
        write_rows(tmp_path / name, SCHEMA, (whole.slice(start, each) for start in range(0, 500, each)))
        file, rows = RowFile(tmp_path / name), np.random.default_rng(0).permutation(500)
        assert file.take(rows)["number"].to_pylist() == rows.tolist()
        spent = []
        for _ in range(15):
            began = time.process_time()
            file.take(rows)
            spent.append(time.process_time() - began)
        return min(spent)

    assert cpu_seconds("spread", 1) < 4 * cpu_seconds("one", 500)


def test_what_is_never_prepared_is_refused(tmp_path):
    """Compressed rows do not lie in the file; a column of a kind that no file of ours has; more than one array holds."""
    compressed = pa.table({"text": ["a" * 1000] * 10})
    with pa.ipc.new_file(str(tmp_path / "c.arrow"), compressed.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(compressed)
    with refused(DataError, "c.arrow", "compressed"):
        RowFile(tmp_path / "c.arrow")
    odd = pa.table({"text": pa.array(["a"]).dictionary_encode()})
    write_rows(tmp_path / "odd.arrow", odd.schema, [odd])
    with refused(TypeError, "dictionary"):
        RowFile(tmp_path / "odd.arrow").take(np.array([0]))
    write_rows(tmp_path / "long.arrow", SCHEMA, [pa.table([["x" * (1 << 20)], [[]], [0], [True]], schema=SCHEMA)])
    with refused(OverflowError, "2048 rows"):
        RowFile(tmp_path / "long.arrow").take(np.zeros(2048, np.int64))


@pytest.mark.parametrize("row", [-1, 700])
def test_a_row_that_is_not_there_is_an_error(file, row):
    with pytest.raises(IndexError):
        file.take(np.array([3, row]))


def test_a_file_sent_to_another_process_is_its_path(file):
    assert pickle.loads(pickle.dumps(file)).take(np.array([5]))["number"].to_pylist() == [5]
    assert len(pickle.dumps(file)) < 400


def test_a_file_without_rows_has_none(tmp_path):
    assert write_rows(tmp_path / "none.arrow", SCHEMA, []) == 0
    none = RowFile(tmp_path / "none.arrow")
    assert (len(none), none.take(np.zeros(0, np.int64)).num_rows, none.column("number").tolist()) == (0, 0, [])


@pytest.mark.slow
def test_rows_of_more_than_two_gigabytes_of_text_are_taken_by_their_numbers(tmp_path):
    """One array of texts cannot hold as much: of no column is one made. 36 names of one file of 64 MB."""
    folder, texts, files = tmp_path / "t", 64, 36
    folder.mkdir()
    held = pa.table([[f"{n:02}" + "x" * (1 << 20) for n in range(texts)], [[]] * texts, list(range(texts)), [True] * texts], schema=SCHEMA)
    write_rows(folder / "00.arrow", SCHEMA, [held])
    for number in range(1, files):
        (folder / f"{number:02}.arrow").hardlink_to(folder / "00.arrow")
    rows = RowFile(folder)
    assert len(rows) * (1 << 20) > 1 << 31
    wanted = np.array([texts * files - 1, 5, texts * 17 + 9])
    assert [text[:2] for text in rows.take(wanted)["text"].to_pylist()] == ["63", "05", "09"]
    assert rows.column("number").sum() == files * sum(range(texts))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux alone says how a file is mapped")
def test_a_file_larger_than_memory_is_not_read_ahead_and_has_the_same_rows(file, table, monkeypatch):
    def flags():
        """VmFlags of the file's mappings; rr is random reading."""
        parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
        return [part.rpartition("VmFlags:")[2].split() for part in parts if str(file._path) in part.partition("\n")[0]]

    assert not any("rr" in each for each in flags())
    monkeypatch.setattr(prepared, "_memory_bytes", lambda: 0)
    large = RowFile(file._path)
    assert any("rr" in each for each in flags())
    rows = np.random.default_rng(0).integers(0, 700, 50)
    assert large.take(rows).to_pylist() == table.take(pa.array(rows)).to_pylist()


def test_pictures_are_read_as_they_were_packed_and_one_that_is_cut_off_since_is_named(tmp_path, monkeypatch):
    """Of any length, in several files and record batches; read ahead or not."""
    draw = np.random.default_rng(0)
    packed = [[draw.bytes(int(size)) for size in draw.integers(0, 5000, 100)] for _ in range(3)]
    (tmp_path / "pictures").mkdir()
    for number, images in enumerate(packed):
        table = pa.table({"image": pa.array(images, pa.binary()), "image_row": pa.array(range(100))})
        with pa.ipc.new_file(str(tmp_path / "pictures" / f"{number}.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=30)
    for memory in (prepared._memory_bytes(), 0):
        monkeypatch.setattr(prepared, "_memory_bytes", lambda size=memory: size)
        store = PictureStore(tmp_path / "pictures")
        assert [store[row] for row in range(300)] == [image for images in packed for image in images]
        for row in (-1, 300):
            with pytest.raises(IndexError):
                store[row]
    monkeypatch.setattr("os.pread", lambda descriptor, size, place: b"")
    with refused(DataError, "1.arrow", "row 150"):
        store[150]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux alone lists what is open")
def test_pictures_that_nobody_reads_any_more_are_closed(tmp_path):
    def opened():
        return [
            link for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and os.path.realpath(link) == str(tmp_path / "p.arrow")
        ]

    write_rows(tmp_path / "p.arrow", pa.schema([("image", pa.binary())]), [pa.table({"image": [b"1", b"22"]})])
    store = PictureStore(tmp_path / "p.arrow")
    assert store[1] == b"22"
    assert opened()
    del store
    assert opened() == []
