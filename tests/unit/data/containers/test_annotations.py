"""Annotation files as other programs write them: read where the meaning is sure, else refused or counted with the place and the value."""

import json
import math

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from reid_ray.data.containers import annotations as reading
from reid_ray.data.containers.annotations import RepeatedKeys, parse_json, stream_list, stream_pairs, text_lines
from reid_ray.data.containers.values import is_safe_name, slashes, split_name, whole
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import ImageRecord, read_source
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import open_store

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
QUICK = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def streamed(folder, data: bytes, how=stream_list):
    (folder / "a.json").write_bytes(data)
    return list(how(open_store(folder), "a.json"))


@QUICK
@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 1]), st.booleans(), st.sampled_from([1, 2, 7, 1 << 20]))
@pytest.mark.slow
def test_a_list_streams_to_what_json_reads(tmp_path, items, indent, ascii_only, chunk):
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass" if ascii_only else "replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_CHUNK", chunk)
        assert repr(streamed(tmp_path, b" \n" + text + b"\n ")) == repr(json.loads(text))


@pytest.mark.slow
@QUICK
@given(st.dictionaries(st.text(), VALUES, max_size=6), st.sampled_from([1, 3, 1 << 20]))
def test_an_object_streams_to_what_json_reads(tmp_path, pairs, chunk):
    text = json.dumps(pairs).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_CHUNK", chunk)
        assert repr(dict(streamed(tmp_path, text, stream_pairs))) == repr(json.loads(text))


@pytest.mark.parametrize("chunk", range(1, 9))
def test_a_value_is_whole_wherever_a_piece_of_the_file_ends(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(reading, "_CHUNK", chunk)
    assert repr(streamed(tmp_path, b'[1.5, -2.5e3, 10, 0.25, NaN, -Infinity, "a\\u00e9", true]')) == (
        "[1.5, -2500.0, 10, 0.25, nan, -inf, 'a\u00e9', True]"
    )


@pytest.mark.parametrize("how", [stream_list, stream_pairs])
@pytest.mark.parametrize("chunk", [5, 1 << 20])
def test_a_file_cut_anywhere_is_refused_as_cut_and_never_read_as_shorter(tmp_path, monkeypatch, how, chunk):
    monkeypatch.setattr(reading, "_CHUNK", chunk)
    whole_text = b'[{"id": 12, "a": "x\\u00e9y"}, {"id": 13.5}]' if how is stream_list else b'{"a": "x", "b": [1, null]}'
    for cut in range(1, len(whole_text)):
        with refused(DataError, "a.json", "JSON"):
            streamed(tmp_path, whole_text[:cut], how)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b'[{"a": 1}, {"a": 2,}]', r"no JSON at record 1, counted from 0 .*mend the file there"),
        (b'[{"a": 1} {"a": 2}]', r"record 1, .*should be a ,"),
        (b"[1, 2,]", r"record 2, .*value after the comma"),
        (b"[1, nul]", "record 1"),
        (b'{"a": 1}\n{"a": 2}\n', "looks like JSON lines"),
        (b"[1]\n[2]\n", "goes on after the end"),
        (b"PK\x03\x04zip", "should be a JSON list of records, but begins with"),
        ('["café"]'.encode("latin-1"), "no UTF-8 text .*0xe9.*save it as UTF-8"),
        ('["a"]'.encode("utf-16-le"), "UTF-16 without a mark"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_list_is_refused_with_the_place(tmp_path, data, words):
    with pytest.raises(DataError, match=words):
        streamed(tmp_path, data)


def test_a_missing_quotation_mark_does_not_take_all_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 100)
    monkeypatch.setattr(reading, "MAX_RECORD", 1000)
    with refused(DataError, "quotation mark"):
        streamed(tmp_path, b'["a", "b' + b"x" * 10_000)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_read_alike(tmp_path, encoding):
    assert streamed(tmp_path, '["é", "一"]'.encode(encoding)) == ["é", "一"]
    assert parse_json('{"a": "é"}'.encode(encoding)) == {"a": "é"}
    (tmp_path / "list.txt").write_bytes("a é.jpg 1\r\n\r\n b\u2028c.jpg 2\n".encode(encoding))
    assert list(text_lines(open_store(tmp_path), "list.txt")) == [(1, "a é.jpg 1"), (3, "b\u2028c.jpg 2")]


def test_keys_said_twice_and_numbers_without_end_are_seen():
    assert parse_json(b'{"id": 1, "id": 2}').repeated == ("id",)
    assert isinstance(parse_json(b'{"a": {"b": 1, "b": 1}}')["a"], RepeatedKeys)
    assert parse_json(b"9" * 5000) == "9" * 5000
    assert math.isnan(parse_json(b"NaN"))
    with refused(ValueError, "nested"):
        parse_json(b"[" * 100_000)


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), ("0001", 1), (" 7 ", 7), ("-1", -1), (3.0, 3), ("3.0", 3), (None, None), (math.nan, None), (2**70, 2**70)],
)
def test_whole_numbers_in_every_writing(value, number):
    assert whole(value, "id") == number


@pytest.mark.parametrize("value", ["p1", "", "1_000", "١", "1e3", 1.5, math.inf, True, [1], {"id": 1}, "9" * 5000])
def test_what_is_no_whole_number_is_named(value):
    with refused(ValueError, "camera_id"):
        whole(value, "camera_id")


def test_splits_and_paths_in_every_writing():
    assert [split_name(value) for value in ("Train", " TEST", "gallery", "bounding_box_train", None, math.nan)] == [
        "train",
        "test",
        "gallery",
        "bounding_box_train",
        None,
        None,
    ]
    assert [slashes(path) for path in ("a\\b.jpg", "./a/b.jpg", ".\\.\\a.jpg", ".hidden/a.jpg")] == [
        "a/b.jpg",
        "a/b.jpg",
        "a.jpg",
        ".hidden/a.jpg",
    ]
    assert [is_safe_name(name) for name in ("a/..b.jpg", "../a", "/a", "C:/a", "a\0b", "")] == [True] + [False] * 5


def cuhk(trees, **changes):
    """CUHK-PEDES in miniature, each record's values put through functions."""
    folder = trees.cuhk_pedes()
    entries = json.loads((folder / "reid_raw.json").read_text())
    changed = [{**entry, **{key: change(entry[key]) for key, change in changes.items()}} for entry in entries]
    (folder / "reid_raw.json").write_text(json.dumps(changed))
    return folder


def read(folder, **options):
    rows = list(read_source(SourceConfig(format="cuhk_pedes", path=str(folder), **options)))
    return [row for row in rows if isinstance(row, ImageRecord)], [row for row in rows if not isinstance(row, ImageRecord)]


@pytest.mark.parametrize(
    "changes",
    [
        {"file_path": lambda path: path.replace("/", "\\")},
        {"file_path": lambda path: f"imgs/{path}"},
        {"file_path": lambda path: f"./{path}"},
        {"id": str},
        {"id": float},
        {"id": "{:04d}".format},
        {"split": str.upper},
        {"split": str.title},
    ],
)
def test_other_writings_of_the_same_records_are_the_same_records(trees, changes):
    plain = [(row.image_id, row.name, row.person_id, row.split, row.captions) for row in read(trees.cuhk_pedes())[0]]
    images, skipped = read(cuhk(trees, **changes))
    assert not skipped
    assert [(row.image_id, row.name, row.person_id, row.split, row.captions) for row in images] == plain


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": lambda value: f"p{value}"}, "bad_annotation 48 times.*record 0: id is 'p1', not a whole number"),
        ({"id": lambda value: None}, "id is null"),
        ({"split": lambda value: "dev"}, "split is 'dev', not one of train, val, test"),
        ({"file_path": lambda path: f"/data/imgs/{path}"}, "unsafe_path 48 times.*file_path is '/data/imgs/cam_a/001_0.jpg'"),
        ({"file_path": lambda path: f"elsewhere/{path}"}, r"missing 48 times.*looked for at .*imgs/elsewhere/cam_a/001_0.jpg"),
        ({"file_path": lambda path: path + "\0"}, "unsafe_path"),
        ({"file_path": lambda path: "x" * 5000 + path}, "unreadable_file 48 times.*too long"),
    ],
)
def test_when_every_row_fails_the_sentence_says_why_with_an_example(trees, tmp_path, changes, words):
    config = {"source": {"format": "cuhk_pedes", "path": str(cuhk(trees, **changes))}, "output": {"path": str(tmp_path / "out")}}
    with pytest.raises(DataError, match=words):
        run_ingest(IngestJob.model_validate({**config, "load": {"processes": 0}}))


def test_a_caption_that_is_nan_is_one_failed_caption(trees, tmp_path):
    folder = trees.cuhk_pedes()
    text = (folder / "reid_raw.json").read_text()
    entries = json.loads(text)
    entries[3]["captions"] = [math.nan]
    entries[4]["id"] = math.inf
    (folder / "reid_raw.json").write_text(json.dumps(entries))
    images, skipped = read(folder)
    assert len(images) == 47
    assert [caption["status"] for caption in images[3].captions] == ["failed"]
    assert [(row.reason, row.detail) for row in skipped] == [("bad_annotation", "record 4: id is inf, not a whole number")]
    mllm = trees.luperson_mllm()
    file = mllm / "Ts-qwen.json"
    file.write_text(
        json.dumps({name: math.nan if index == 0 else text for index, (name, text) in enumerate(json.loads(file.read_text()).items())})
    )
    rows = list(read_source(SourceConfig(format="luperson_mllm", path=str(mllm))))
    assert sum(caption["status"] == "failed" for row in rows for caption in row.captions) == 1


def test_a_record_that_says_a_key_twice_is_counted(trees):
    folder = trees.cuhk_pedes()
    text = (folder / "reid_raw.json").read_text()
    (folder / "reid_raw.json").write_text(text.replace('"id": 1}', '"id": 1, "id": 2}', 1))
    images, skipped = read(folder)
    assert len(images) == 47
    assert [row.detail for row in skipped] == ["record 0: it says id more than once"]
