"""Whatever lies in a data set's folder, its reader ends in rows and counted reasons or in one sentence; never in another error."""

import json
import os
import shutil
import signal
import socket
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shards import shard

from reid_ray.data.config import LoadConfig
from reid_ray.data.fetch import load_all
from reid_ray.data.formats.config import READERS, SourceConfig
from reid_ray.data.formats.registry import read_source
from reid_ray.data.images import image_size
from reid_ray.data.ingest.job import Tables, admit
from reid_ray.data.lint.caption_text import least_tokens
from reid_ray.data.lint.checks import check, summary
from reid_ray.data.lint.gather import Rows
from reid_ray.data.lint.page import as_html, as_json
from reid_ray.data.lint.token_counts import TokenCounts
from reid_ray.data.perceptual_hash import perceptual_hash
from reid_ray.errors import ReidRayError

FUZZ = settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
TREES = [format for format in READERS if format != "parquet"]  # the project's own tables have tests of their own
ODD = ["bytes", "cut", "empty", "loop", "pipe", "socket", "folder", "gone", "device", "text"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["train", "Train", "\ud800", "a\0b", "..", "/", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


class LateError(BaseException):
    """No reader may take it for an error of a file."""


@contextmanager
def at_most(seconds):
    def late(*_):
        raise LateError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ends_well(format, folder, out):
    """Reads and writes all of it; every row is counted once."""
    shutil.rmtree(out, ignore_errors=True)
    with at_most(30), suppress(ReidRayError):
        records = admit(read_source(SourceConfig(format=format, path=str(folder))))
        rows = load_all(records, partial(image_size, max_pixels=10**6), LoadConfig(processes=0), remote=False, max_bytes=1 << 20)
        count = 0
        with Tables(out, with_bytes=True, part_bytes=1 << 20) as tables:
            for row in rows:
                tables.add(row)
                count += 1
        assert tables.images + tables.failed.counts.total() == count


def lints_well(format, folder):
    """Lint reads it too, and its report can be written, whatever the names and texts."""
    with at_most(30), suppress(ReidRayError):
        records = admit(read_source(SourceConfig(format=format, path=str(folder))))
        rows = Rows(script="LATIN", examples=6, tokens=TokenCounts(least_tokens, 77, "by words"))
        hashes = partial(perceptual_hash, max_pixels=10**6)
        for row in load_all(records, hashes, LoadConfig(processes=0), remote=False, max_bytes=1 << 20):
            rows.add(row)
        report = as_json(str(folder), summary(rows), rows.unusable.counts, check(rows, 7))
        json.dumps(report, ensure_ascii=False, allow_nan=False).encode()
        as_html(report, {}).encode()


def tree(trees, people, format):
    if format == "luperson":
        return trees.luperson_lmdb()
    if format == "cuhk03":
        return trees.cuhk03("images", "detected")
    if format == "webdataset":
        members = [
            (f"{index}.{suffix}", data) for index in range(6) for suffix, data in (("jpg", people[index][0]), ("json", b'{"person_id": 1}'))
        ]
        return shard(trees.root / "shards" / "0.tar", members).parent
    name = "market1501" if format == "folder" else format
    assert hasattr(trees, name), f"reader {format} has no sample tree: add a method {format} to Trees in tests/unit/data/conftest.py"
    return getattr(trees, name)()


def make_odd(file, kind, junk):
    """Puts something in a file's place; gives what to close."""
    data = file.read_bytes()
    file.unlink()
    if kind in ("bytes", "cut", "empty", "text"):
        file.write_bytes({"bytes": junk, "cut": data[: len(data) * 2 // 3], "empty": b"", "text": "caf\u00e9\n".encode("utf-16")}[kind])
    elif kind == "loop":
        file.symlink_to(file.name)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener, suppress(OSError):  # the path may be too long for one
            listener.bind(str(file))
    return data


@pytest.mark.parametrize("format", TREES)
@pytest.mark.slow
def test_odd_things_in_the_place_of_any_file(trees, people, tmp_path, format):
    folder = tree(trees, people, format)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    notes = [path for path in files if path.suffix not in (".jpg", ".png")]

    @FUZZ
    @given(st.sampled_from(notes + files[:3]), st.sampled_from(ODD), st.binary(max_size=300))
    def fuzz(file, kind, junk):
        data = make_odd(file, kind, junk)
        try:
            ends_well(format, folder, tmp_path / "out")
        finally:
            if file.is_dir() and not file.is_symlink():
                file.rmdir()
            else:
                file.unlink(missing_ok=True)
            file.write_bytes(data)

    fuzz()


@pytest.mark.parametrize(
    ("format", "file", "path_key"), [("cuhk_pedes", "reid_raw.json", "file_path"), ("rstpreid", "data_captions.json", "img_path")]
)
def test_any_json_in_the_place_of_any_value(tmp_path, format, file, path_key):
    @FUZZ
    @given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("id", path_key, "captions", "split"), JSON)) | JSON, max_size=5))
    def fuzz(entries):
        first = {"id": 1, path_key: "0000_c1_0000.jpg", "captions": ["A man."], "split": "train"}
        (tmp_path / file).write_text(json.dumps([first, *entries]))
        ends_well(format, tmp_path, tmp_path.parent / "out")
        lints_well(format, tmp_path)

    fuzz()


# format: its file, an entry as published, and what may stand in the place of any of its values
PUBLISHED = {
    "webperson": ("100w.json", {"a/1.jpg": {"caption1": "A man.", "caption2": "He walks."}}),
    "synth_pedes": (
        "synthpedes_dataset.json",
        {"id": 1, "file_path": "Part1/1/1.jpg", "attributes": ["man"], "captions": ["A man."], "prompt_caption": ["He."]},
    ),
    "ham_pedes": ("HAM_PEDES.json", {"file_path": "Part1/1/1.jpg", "captions": ["A man."]}),
    "mals": ("gene_attrs/a_attrs.json", {"image": "gene_crop/a/0.jpg", "caption": "A man.", "image_id": "a", "label": [1] * 27}),
    "ufine3c": ("UFine3C_Annotations.json", {"id": 1, "source": "x", "split": "test", "file_path": "images/1.jpg", "captions": ["A man."]}),
    "interactive_pedes": (
        "Interactive-PEDES_interactive_annos.json",
        {
            "split": "train",
            "id": 1,
            "file_path": "a/1.jpg",
            "captions": ["A."],
            "initial_description": "B.",
            "questions": [],
            "answers": [],
        },
    ),
    "itcpr": ("query.json", {"file_path": "PRCC/1.jpg", "datasets": "PRCC", "person_id": 1, "instance_id": 2, "caption": "A man."}),
    "syncpr": (
        "SynCPR.json",
        {"reference_image_path": "1.jpg", "target_image_path": "2.jpg", "reference_caption": "A.", "edit_caption": "B.", "cpr_id": 0},
    ),
}


@pytest.mark.parametrize("format", PUBLISHED)
def test_any_json_in_the_lists_of_captioned_sets(tmp_path, format):
    file, entry = PUBLISHED[format]
    folder = tmp_path / "set"
    (folder / file).parent.mkdir(parents=True)
    if format == "itcpr":
        (folder / "gallery.json").write_text("[]")

    @settings(FUZZ, max_examples=examples(12))
    @given(
        st.lists(
            st.fixed_dictionaries({}, optional=dict.fromkeys(entry, JSON)) | st.dictionaries(st.text(), JSON, max_size=2) | JSON, max_size=5
        )
    )
    def fuzz(others):
        (folder / file).write_text(json.dumps([entry, *others]))
        ends_well(format, folder, tmp_path / "out")
        lints_well(format, folder)

    fuzz()


@FUZZ
@given(st.dictionaries(st.text(min_size=1, max_size=8) | st.sampled_from(["\ud800.jpg", "a/b.jpg", "\0.jpg", "x" * 700]), JSON, max_size=5))
def test_any_caption_file(tmp_path, captions):
    (tmp_path / "set" / "LUPerson-MLLM").mkdir(parents=True, exist_ok=True)
    (tmp_path / "set" / "Ts-qwen.json").write_text(json.dumps(captions))
    ends_well("luperson_mllm", tmp_path / "set", tmp_path / "out")
    lints_well("luperson_mllm", tmp_path / "set")


@pytest.mark.slow
@FUZZ
@given(st.binary(max_size=200), st.text(max_size=100))
def test_any_list_file(trees, tmp_path, junk, text):
    folder = trees.msmt17() if not (trees.root / "MSMT17").exists() else trees.root / "MSMT17"
    for content in (junk, text.encode("utf-8", "surrogatepass"), b"x.jpg " + b"9" * 5000):
        (folder / "list_val.txt").write_bytes(content)
        ends_well("msmt17", folder, tmp_path / "out")


@FUZZ
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "a.x", ".h", "d/a", "..", "\u00e9"]), st.sampled_from(["jpg", "JPG", "txt", "json", "cls", ""]), JSON
        ),
        max_size=12,
    )
)
def test_any_members_of_a_shard(tmp_path, members):
    content = [(f"{stem}.{suffix}", json.dumps(value).encode()) for stem, suffix, value in members]
    shard(tmp_path / "set" / "0.tar", content)
    ends_well("webdataset", tmp_path / "set", tmp_path / "out")
    lints_well("webdataset", tmp_path / "set")


def test_any_names_in_a_folder(tmp_path, people):
    @FUZZ
    @given(
        st.lists(st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b"..")), max_size=8)
    )
    def fuzz(names):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        (tmp_path / "set").mkdir()
        for name in names:
            with open(os.fsencode(tmp_path / "set") + b"/" + name + b".jpg", "wb") as file:
                file.write(people[0][0])
        ends_well("folder", tmp_path / "set", tmp_path / "out")
        lints_well("folder", tmp_path / "set")

    fuzz()
