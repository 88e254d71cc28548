"""Names of exported images: unique, possible on a file system, and the ids behind them come back; in every layout."""

import io
import os
import tarfile
import unicodedata
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from examples import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from reid_ray.data.containers.image_names import FILE, NameList, restored
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.file_naming import Names
from reid_ray.data.export.job import run_export
from reid_ray.data.export.layouts import WRITERS
from reid_ray.data.formats.registry import ImageRecord
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES, table_of
from reid_ray.storage import read_table
from reid_ray.storage.file_systems import open_store

# Ids that cannot be names, or not all at once: on one file system, in one archive, or in either on another system.
ODD = [
    "a.jpg", "a.JPG", "a.png", "a.json", "a.jpg/b.jpg", "a.jpg/b.jpg/c.jpg", "v1.0.jpg", "v1_0.jpg", "v1.0", "", ".", "..", "/", "../b.jpg",
    "/etc/c.jpg", "x//y.jpg", "x/./y.jpg", "x/y.jpg", "./x/y.jpg", "b\0.jpg", "b.jpg", "c\n.jpg", "c\\d.jpg", ".hidden.jpg", "._a.jpg",
    "CON.jpg", "con.png", "nul", "aux.jpg/x.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "CAFE\u0301.jpg", "stra\u00dfe.jpg", "STRASSE.jpg",
    "x y/\u5f20 \U0001f600.jpg", "a b/c#d%20.jpeg", "https://cdn.example.com/i.jpg?sig=" + "f" * 260, "i" * 251 + ".jpg", 90 * "\u5f20",
    "/".join(["deep"] * 900) + "/x.jpg", "~", "a~b.jpg", " ", "-rf.jpg", "\u202egpj.exe", "0001.tar.gz", "a.txt", "lone \\ud800.jpg",
]  # fmt: skip


def same_on_some_system(name):
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def names_of(ids, **options):
    names = Names(**options)
    return [names.name_of(image_id, "jpg") for image_id in ids]


PARTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["a", "A", "a.jpg", "a.JPG", "..", ".", "", "b.c", "\u00e9", "e\u0301", "x" * 300, "con"])
)
IDS = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), unique=True, max_size=20)


@pytest.mark.slow
@given(ids=IDS, flat=st.booleans(), keys=st.booleans())
@example(ids=[*ODD, "half \ud800.jpg"], flat=False, keys=False)
@example(ids=[*ODD, "half \ud800.jpg"], flat=True, keys=False)
@example(ids=[*ODD, "half \ud800.jpg"], flat=False, keys=True)
@settings(max_examples=examples(150), deadline=None)
def test_names_are_unique_and_possible_and_give_the_ids_back(tmp_path_factory, ids, flat, keys):
    names = names_of(ids, flat=flat, keys=keys)
    folder = tmp_path_factory.mktemp("names")
    listed = NameList(folder)
    for name, image_id in zip(names, ids, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("xb"):  # legal, new, and no other file's folder
            pass
        listed.add(name, image_id)
    listed.close()
    assert len({same_on_some_system(name) for name in names}) == len(ids)
    assert not any(os.path.relpath(folder / name, folder).startswith("..") for name in names)
    if keys:
        stems = [name.rpartition(".")[0] for name in names]
        assert len({same_on_some_system(stem) for stem in stems}) == len(ids)
        assert not any("." in stem for stem in stems)
    assert not flat or not any("/" in name for name in names)
    records = (ImageRecord(name, "D") for name in names)
    assert [record.image_id for record in restored(records, open_store(folder))] == ids


def test_an_id_that_can_be_a_name_is_its_own_name():
    ids = ["CUHK01/0001.jpg", "cam_a/\u5f20\u4e09 \U0001f600.png", "Market/x.JPG", "a b/c#d%20.jpeg", "a/b~c.jpg"]
    assert names_of(ids) == ids
    assert names_of(["01_02_0003_00000004"]) == ["01_02_0003_00000004.jpg"]


def test_an_id_that_is_the_made_name_of_another_takes_nothing_from_it():
    (made,) = names_of(["../x.jpg"])
    assert len(set(names_of([made, "../x.jpg"]))) == 2
    assert names_of(["../x.jpg", made])[0] == made


def test_a_damaged_list_of_names_is_refused_by_file_and_line(tmp_path):
    (tmp_path / FILE).write_text('{"name": "a", "image_id": "b"}\n["a", "b"]\n')
    with pytest.raises(DataError, match=rf"{FILE}: line 2 "):
        list(restored(iter([ImageRecord("a", "D")]), open_store(tmp_path)))


def picture(number, format="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 64), (number % 256, number // 256, 90)).save(buffer, format)
    return buffer.getvalue()


def write_tables(folder, ids, *, split, kind="human", format="JPEG"):
    """An image per id, with a person, a camera and a caption of its own."""
    images = [
        {"image_id": image_id, "image": picture(n, format), "split": split, "person_id": 7 * n + 3, "camera_id": 1 + n % 2, "dataset": "D"}
        for n, image_id in enumerate(ids)
    ]
    captions = [
        {"caption_id": str(n), "image_id": image_id, "kind": kind, "text": f"A person of number {n}.", "status": "ok", "captioner": "qwen"}
        for n, image_id in enumerate(ids)
    ]
    for name, schema, rows in (("images", IMAGES, images), ("captions", CAPTIONS, captions)):
        (folder / name).mkdir(parents=True)
        pq.write_table(table_of(schema, rows), folder / name / "part.parquet")


# format of the export: what its tables need, and columns that the layout keeps
LAYOUTS = {
    "cuhk_pedes": ({"split": "val"}, ("split", "person_id")),
    "icfg_pedes": ({"split": "test"}, ("split", "person_id")),
    "rstpreid": ({"split": "train"}, ("split", "person_id", "camera_id")),
    "market1501": ({"split": "gallery"}, ("split", "person_id", "camera_id")),
    "dukemtmc": ({"split": "query"}, ("split", "person_id", "camera_id")),
    "msmt17": ({"split": "gallery"}, ("split", "person_id", "camera_id")),
    "cuhk03": ({"split": "query", "format": "PNG"}, ("split", "person_id", "camera_id")),
    "cuhk03_images": ({"split": "query", "format": "PNG"}, ("split", "person_id", "camera_id")),
    "luperson": ({"split": "train"}, ()),
    "luperson_mllm": ({"split": "train", "kind": "static"}, ()),
    "ufine6926": ({"split": "train"}, ("split", "person_id")),
    "ufine3c": ({"split": "test"}, ("split", "person_id")),
    "webperson": ({"split": None, "kind": "static"}, ()),
    "synth_pedes": ({"split": None, "kind": "static"}, ("person_id",)),
    "ham_pedes": ({"split": None, "kind": "static"}, ()),
    "mals": ({"split": None, "kind": "static"}, ()),
    "interactive_pedes": ({"split": "val"}, ("split", "person_id")),
    "itcpr": ({"split": "gallery"}, ("split", "person_id")),
    "webdataset": ({"split": "anything"}, ("split", "person_id", "camera_id", "dataset")),
}
CAPTIONED = set(LAYOUTS) - {"itcpr", "market1501", "dukemtmc", "msmt17", "cuhk03", "cuhk03_images", "luperson"}
# Layouts whose reader takes nothing but names of one kind, for which the tables say too little.
STRICT = {"luperson": ["01_02_0003_00000004", "01_02_0003_00000004\n"], "cuhk03_images": ["q/1_001_1_01.png", "r/1_001_1_01.png"]}


def test_every_layout_is_asked():
    assert set(LAYOUTS) == set(WRITERS) - {"syncpr"}  # whose images come in twos


@pytest.mark.parametrize("format", LAYOUTS)
def test_any_ids_go_round_in_any_layout(tmp_path, format):
    needs, kept = LAYOUTS[format]
    ids = [*STRICT.get(format, ()), *ODD]
    write_tables(tmp_path / "tables", ids, **needs)
    job = {"tables": str(tmp_path / "tables"), "format": format, "processes": 0, "output": {"path": str(tmp_path / "out")}}
    counts = run_export(ExportJob.model_validate(job))["counts"]
    assert counts["read"] == len(ids) == counts["written"] + sum(counts["failed"].values())
    assert counts["written"] == (1 if format in STRICT else len(ids))
    source = {"format": format.removesuffix("_images"), "path": str(tmp_path / "out"), "name": "D"}
    back = {"source": source, "load": {"processes": 0}, "output": {"path": str(tmp_path / "back")}}
    assert run_ingest(IngestJob.model_validate(back))["counts"] == {
        "read": counts["written"],
        "written": counts["written"],
        "failed": {},
        "left_out": {},
    }
    columns = ["image_id", "image", *kept]
    before = {row["image_id"]: row for row in read_table(tmp_path / "tables" / "images", IMAGES).select(columns).to_pylist()}
    after = read_table(tmp_path / "back" / "images", IMAGES).select(columns).to_pylist()
    assert all(row == before[row["image_id"]] for row in after)
    captions = read_table(tmp_path / "back" / "captions", CAPTIONS).to_pylist()
    assert len(captions) == (len(after) if format in CAPTIONED else 0)
    assert all(caption["text"] == f"A person of number {ids.index(caption['image_id'])}." for caption in captions)


def test_a_shard_has_no_member_twice(tmp_path):
    write_tables(tmp_path / "tables", ODD, split="train")
    job = {"tables": str(tmp_path / "tables"), "format": "webdataset", "processes": 0, "output": {"path": str(tmp_path / "out")}}
    run_export(ExportJob.model_validate(job))
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        members = tar.getnames()
    assert len(members) == 2 * len(ODD)
    assert max(Counter(map(same_on_some_system, members)).values()) == 1


def test_a_second_row_of_an_id_and_a_folder_too_deep_are_counted(tmp_path):
    write_tables(tmp_path / "tables", ["a.jpg", "a.jpg", "b.jpg", "x/" * 480 + "c.jpg"], split="train")
    room = tmp_path
    while len(str(room)) < 3250:
        room = room / ("d" * 200)
    room.mkdir(parents=True)
    job = {"tables": str(tmp_path / "tables"), "format": "cuhk_pedes", "processes": 0, "output": {"path": str(room / "o")}}
    counts = run_export(ExportJob.model_validate(job))["counts"]
    assert (counts["written"], counts["failed"]) == (2, {"repeated_id": 1, "name_too_long": 1})


def test_two_captioners_of_names_that_are_alike_keep_files_of_their_own(tmp_path):
    from reid_ray.data.formats.luperson_mllm import CaptionFiles

    Path(tmp_path / "o").mkdir()
    files = CaptionFiles(tmp_path / "o")
    names = [files.name_of("static", captioner=who, model=None) for who in ("Qwen VL", "qwen-vl", "Qwen VL", "!!!", "x" * 300)]
    assert len(set(names)) == 4
    assert names[0] == names[2] == "Ts-qwen-vl.json"
    assert max(map(len, names)) < 250
