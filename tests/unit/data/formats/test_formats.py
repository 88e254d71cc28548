"""Every reader on a miniature tree in the published layout, and the traps of each data set."""

import io
import json
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pyarrow import fs
from refusals import refused

from reid_ray.data.formats.config import READERS, SourceConfig
from reid_ray.data.formats.registry import ImageRecord, Skipped, read_source, reader_of
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store, open_file_store, open_store


def read(format, path, **options):
    rows = list(read_source(SourceConfig(format=format, path=str(path), **options)))
    return [row for row in rows if isinstance(row, ImageRecord)], [row for row in rows if isinstance(row, Skipped)]


def splits(images):
    return dict(Counter(image.split for image in images))


def data_of(image):
    return image.data if image.data is not None else image.store.read_bytes(image.name)


# CUHK-PEDES, ICFG-PEDES, RSTPReid


def test_cuhk_pedes_reads_every_caption_of_every_image(trees, people):
    images, skipped = read("cuhk_pedes", trees.cuhk_pedes())
    assert not skipped
    assert splits(images) == {"train": 32, "val": 8, "test": 8}
    assert [len(image.captions) for image in images] == [3] + [2] * 47
    assert [image.person_id for image in images] == [index // 4 + 1 for index in range(48)]
    assert {image.camera_id for image in images} == {None}
    assert [caption["text"] for caption in images[5].captions] == people[5][1]
    assert data_of(images[5]) == people[5][0]


def test_caption_all_without_split_is_refused_by_name(trees):
    folder = trees.cuhk_pedes()
    (folder / "reid_raw.json").unlink()
    with refused(DataError, "caption_all.json"):
        read("cuhk_pedes", folder)
    with refused(DataError, "caption_all.json", "split"):
        read("cuhk_pedes", folder, annotations="caption_all.json")


@pytest.mark.parametrize("name", ["ICFG-PEDES.json", "ICFG_PEDES.json"])
def test_icfg_takes_the_split_from_the_file_and_not_from_the_folders(trees, name):
    images, _ = read("icfg_pedes", trees.icfg_pedes(name))
    assert splits(images) == {"train": 36, "test": 12}
    assert {image.image_id.partition("/")[0] for image in images if image.split == "train"} == {"train", "test"}
    assert {image.camera_id for image in images} == {1, 2, 3, 4}


def test_rstpreid_reads_img_path_and_the_camera_in_the_name(trees):
    images, _ = read("rstpreid", trees.rstpreid())
    assert splits(images) == {"train": 16, "val": 16, "test": 16}
    assert images[1].image_id.startswith("0000_c")
    assert {image.camera_id for image in images} == {10, 11, 12, 13}
    assert {len(image.captions) for image in images} == {2}


def test_a_caption_file_of_another_data_set_is_named(trees):
    cuhk, rstp = trees.cuhk_pedes(), trees.rstpreid()
    with refused(DataError, "file_path", "CUHK-PEDES"):
        read("rstpreid", cuhk, annotations="reid_raw.json")
    with refused(DataError, "img_path", "RSTPReid"):
        read("cuhk_pedes", rstp, annotations="data_captions.json")
    with refused(DataError, "ICFG-PEDES.json", "ICFG_PEDES.json"):
        read("icfg_pedes", rstp)


@pytest.mark.parametrize("content", [b'{"a": 1}', b'[{"id": 1, ', b"[3]"])
def test_a_broken_caption_file_is_refused(tmp_path, content):
    (tmp_path / "reid_raw.json").write_bytes(content)
    with refused(DataError, "reid_raw.json"):
        read("cuhk_pedes", tmp_path)


def test_bad_entries_are_skipped_with_their_captions_and_a_reason(tmp_path):
    good = {"split": "train", "captions": ["a man", None, 7, " "], "file_path": "a.jpg", "id": 1}
    bad = [{"id": "p1"}, {"split": "dev"}, {"file_path": None}, {"file_path": "../../etc/passwd"}, {"id": True}]
    (tmp_path / "imgs").mkdir()
    (tmp_path / "reid_raw.json").write_text(json.dumps([good, *({**good, **change} for change in bad), "x"]))
    images, skipped = read("cuhk_pedes", tmp_path)
    assert [row.reason for row in skipped] == ["bad_annotation"] * 3 + ["unsafe_path"] + ["bad_annotation"] * 2
    assert all(len(row.captions) == 4 for row in skipped[:-1])
    assert [caption["status"] for caption in images[0].captions] == ["ok", "failed", "failed", "failed"]
    reasons = [caption["reason"].partition(":")[0] for caption in images[0].captions[1:]]
    assert reasons == ["null_caption", "caption_not_text", "empty_caption"]


# Market-1501, DukeMTMC-reID, MSMT17, CUHK03


@pytest.mark.parametrize("inside", [True, False])
def test_market_drops_junk_and_keeps_distractors_in_the_gallery(trees, inside):
    folder = trees.market1501()
    images, skipped = read("market1501", folder if inside else folder.parent)
    assert splits(images) == {"train": 24, "query": 6, "gallery": 20}
    assert Counter(row.reason for row in skipped) == {"junk": 2, "no_image_file": 1}
    assert [image.split for image in images if image.person_id == 0] == ["gallery", "gallery"]
    assert -1 not in {image.person_id for image in images}
    assert {image.camera_id for image in images} == {1, 2, 3, 4}


def test_duke_has_markets_layout_and_cameras_to_8(trees):
    images, skipped = read("dukemtmc", trees.dukemtmc())
    assert splits(images) == {"train": 24, "query": 6, "gallery": 18}
    assert {image.camera_id for image in images} == {5, 6, 7, 8}
    assert not skipped
    duke_as_market = read("market1501", trees.root / "DukeMTMC-reID")
    assert not duke_as_market[0]
    assert {row.reason for row in duke_as_market[1]} == {"unexpected_name"}


def test_market_refuses_a_camera_it_does_not_have(trees):
    folder = trees.market1501()
    (folder / "query" / "0003_c9s1_000001_00.jpg").write_bytes(b"x")
    assert "unknown_camera" in {row.reason for row in read("market1501", folder)[1]}


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_msmt17_reads_both_versions_and_keeps_test_people_apart(trees, version):
    images, skipped = read("msmt17", trees.msmt17(version))
    assert not skipped
    assert splits(images) == {"train": 24, "val": 8, "query": 4, "gallery": 12}
    assert {image.camera_id for image in images} == {1, 2, 3, 4}
    people_of = {split: {image.person_id for image in images if image.split == split} for split in splits(images)}
    assert people_of["train"] == people_of["val"] == set(range(8))
    assert people_of["query"] == people_of["gallery"] == {8, 9, 10, 11}
    assert all(image.store.read_bytes(image.name) for image in images)


def test_msmt17_merges_val_into_train_where_asked(trees):
    assert splits(read("msmt17", trees.msmt17(), val_as="train")[0]) == {"train": 32, "query": 4, "gallery": 12}


def test_msmt17_lines_that_are_no_path_and_pid_are_counted(trees):
    folder = trees.msmt17()
    (folder / "list_val.txt").write_text("0000/x.jpg\n\n0000/oddly_named.jpg 0\n../../x.jpg 3\n")
    _, skipped = read("msmt17", folder)
    assert [row.reason for row in skipped] == ["bad_annotation", "bad_annotation"]


@pytest.mark.parametrize("layout", ["market", "images", "release"])
@pytest.mark.parametrize("boxes", ["labeled", "detected"])
def test_cuhk03_reads_three_layouts_alike(trees, people, layout, boxes):
    images, skipped = read("cuhk03", trees.cuhk03(layout, boxes), boxes=boxes)
    assert not skipped
    assert splits(images) == {"train": 16, "query": 4, "gallery": 4}
    assert {image.person_id for image in images if image.split == "train"} == {1, 2, 3, 4}
    first = min((image for image in images if image.person_id == 5 and image.split == "query"), key=lambda image: image.image_id)
    assert (first.camera_id, first.dataset) == (1, f"CUHK03-{boxes}")
    pixels = np.asarray(Image.open(io.BytesIO(data_of(first))))
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(people[16][0]))))


def test_cuhk03_names_what_is_missing(trees):
    folder = trees.cuhk03("release")
    with refused(DataError, "cuhk03_new_protocol_config_detected.mat"):
        read("cuhk03", folder, boxes="detected")
    (folder / "cuhk03_release" / "cuhk-03.mat").write_bytes(b"no HDF5")
    with refused(DataError, "cuhk-03.mat"):
        read("cuhk03", folder, boxes="labeled")


# LUPerson, LUPerson-MLLM


def test_luperson_lmdb_and_folders(trees, people, tmp_path):
    folder = trees.luperson_lmdb()
    images, skipped = read("luperson", folder)
    assert [image.image_id for image in images[:2]] == ["00_00_0000_00000000", "00_00_0000_00000001"]
    assert [image.data for image in images] == [person[0] for person in people]
    assert {(image.person_id, image.camera_id, image.split) for image in images} == {(None, None, None)}
    assert not skipped
    file = tmp_path / "folders" / "FR" / "Paris" / "video" / "000001.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(people[0][0])
    assert [image.image_id for image in read("luperson", tmp_path / "folders")[0]] == ["FR/Paris/video/000001.jpg"]


def test_luperson_mllm_joins_its_four_files(trees):
    images, skipped = read("luperson_mllm", trees.luperson_mllm())
    assert len(images) == 24
    assert not skipped
    columns = {(c["kind"], c["model"], c["instruction_id"]) for c in images[3].captions}
    assert columns == {
        ("static", "Qwen-VL-Chat-7B", "Ts-qwen"),
        ("dynamic", "Qwen-VL-Chat-7B", "Td-qwen"),
        ("static", "Shikra-7B", "Ts-shikra"),
        ("dynamic", "Shikra-7B", "Td-shikra"),
    }


def test_luperson_mllm_counts_a_dynamic_caption_with_a_slot_left_in_it_as_failed(trees):
    folder = trees.luperson_mllm()
    left = {"Td-qwen": "A man in [clothing description].", "Td-shikra": "<A man> in red.", "Ts-qwen": "A man in <red>."}
    name = next(iter(json.loads((folder / "Ts-qwen.json").read_text())))
    for file, text in left.items():
        captions = json.loads((folder / f"{file}.json").read_text())
        (folder / f"{file}.json").write_text(json.dumps({**captions, name: text}))
    found = {image.image_id: image.captions for image in read("luperson_mllm", folder)[0]}[name]
    said = {caption["instruction_id"]: (caption["status"], caption["text"]) for caption in found}
    assert said["Td-qwen"] == ("failed", left["Td-qwen"])
    assert said["Td-shikra"] == ("failed", left["Td-shikra"])
    assert said["Ts-qwen"] == ("ok", left["Ts-qwen"])  # of no template


def test_luperson_mllm_takes_a_name_said_twice_for_one_caption_or_for_none(trees):
    folder = trees.luperson_mllm()
    file = folder / "Ts-qwen.json"
    text = file.read_text().rstrip("}")
    first, second = list(json.loads(file.read_text()).items())[:2]
    pairs = [first, (f"part2/{second[0]}", "A caption of somebody else.")]
    file.write_text(text + "".join(f", {json.dumps(name)}: {json.dumps(caption)}" for name, caption in pairs) + "}")
    images = {image.image_id: image.captions for image in read("luperson_mllm", folder)[0]}
    assert [caption["status"] for caption in images[first[0]]] == ["ok"] * 4
    of_file = [caption for caption in images[second[0]] if caption["instruction_id"] == "Ts-qwen"]
    assert [(caption["status"], caption["reason"].partition(":")[0]) for caption in of_file] == [("failed", "repeated_name")] * 2


def test_luperson_mllm_takes_images_from_lupersons_lmdb_and_counts_orphans(trees):
    lmdb = trees.luperson_lmdb()
    folder = trees.luperson_mllm(images=False)
    captions = json.loads((folder / "Ts-qwen.json").read_text())
    (folder / "Ts-qwen.json").write_text(json.dumps({**captions, "99_00_0000_00000000.jpg": "a ghost"}))
    images, skipped = read("luperson_mllm", folder, images=str(lmdb))
    assert len(images) == 24
    assert [(row.reason, row.captions[0]["text"]) for row in skipped] == [("missing", "a ghost")]


def test_luperson_mllm_keeps_images_without_captions_and_captions_without_images(trees, people):
    folder = trees.luperson_mllm()
    (folder / "LUPerson-MLLM" / "00_00_0000_00000000.jpg").unlink()
    (folder / "LUPerson-MLLM" / "77_00_0000_00000000.jpg").write_bytes(people[0][0])
    images, skipped = read("luperson_mllm", folder)
    assert [image.image_id for image in images if not image.captions] == ["77_00_0000_00000000.jpg"]
    assert [(row.image_id, row.reason, len(row.captions)) for row in skipped] == [("00_00_0000_00000000.jpg", "missing", 4)]


# Folders, shards, addresses


def test_a_folder_with_a_pattern_each_its_own_or_unknown(trees):
    folder = trees.market1501()
    pattern = r"(?P<split>query|bounding_box_\w+)/(?P<person_id>-?\d+)_c(?P<camera_id>\d+)"
    images, skipped = read("folder", folder, pattern=pattern)
    assert len(images) == 52
    assert {image.split for image in images} == {"bounding_box_train", "query", "bounding_box_test"}
    assert [row.reason for row in skipped] == ["no_image_file"]
    own = read("folder", folder, each_its_own=True)[0]
    assert [image.person_id for image in own] == list(range(52))
    assert {image.person_id for image in read("folder", folder)[0]} == {None}
    _, unmatched = read("folder", folder, pattern=r"(?P<person_id>\d\d\d9)_c")
    assert len([row for row in unmatched if row.reason == "pattern_does_not_match"]) == 48


def test_tar_shards_in_the_webdataset_form(tmp_path, people):
    with tarfile.open(tmp_path / "crops-0000.tar", "w") as tar:
        for index, (jpeg, texts, person, _) in enumerate(people[:4]):
            fields = json.dumps({"person_id": person, "split": "train", "captions": texts[1:]}).encode()
            for suffix, data in (("jpg", jpeg), ("txt", texts[0].encode()), ("json", fields)):
                member = tarfile.TarInfo(f"a/{index:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    images, skipped = read("webdataset", tmp_path)
    assert not skipped
    assert [image.image_id for image in images] == [f"a/{index:04d}.jpg" for index in range(4)]
    assert [caption["text"] for caption in images[1].captions] == people[1][1]
    assert (images[1].person_id, images[1].split, images[1].data) == (people[1][2], "train", people[1][0])


def test_a_shard_that_breaks_off_anywhere_is_counted(tmp_path, people):
    starts = []
    with tarfile.open(tmp_path / "whole", "w") as tar:
        for index, (jpeg, texts, _, _) in enumerate(people[:4]):
            starts.append(tar.offset)
            for suffix, data in (("jpg", jpeg), ("txt", texts[0].encode())):
                member = tarfile.TarInfo(f"{index:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    whole = (tmp_path / "whole").read_bytes()
    for cut in (starts[2], starts[2] + 100, starts[2] + 700, starts[3] - 10):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        images, skipped = read("webdataset", tmp_path)
        assert len(images) in (1, 2)
        assert [row.reason for row in skipped] == ["broken_shard"]


def test_a_file_uri_and_a_filesystem_that_is_not_local_read_as_a_path_does(trees):
    folder = trees.icfg_pedes()
    config = SourceConfig(format="icfg_pedes", path=str(folder))
    plain = [(image.image_id, data_of(image)) for image in read_source(config)]
    by_uri = [(image.image_id, data_of(image)) for image in read_source(config.model_copy(update={"path": folder.as_uri()}))]
    elsewhere = Store(fs.SubTreeFileSystem(str(trees.root), fs.LocalFileSystem()), "ICFG-PEDES", uri="mock://bucket/ICFG-PEDES")
    assert not elsewhere.is_local
    remote = list(reader_of("icfg_pedes")(elsewhere, config))
    assert plain == by_uri == [(image.image_id, data_of(image)) for image in remote]
    assert remote[0].path == f"mock://bucket/ICFG-PEDES/imgs/{remote[0].image_id}"
    market = trees.market1501().name
    away = Store(fs.SubTreeFileSystem(str(trees.root), fs.LocalFileSystem()), market)
    here = open_store(trees.root / market)
    read = reader_of("market1501")
    assert [row.image_id for row in read(away, config)] == [row.image_id for row in read(here, config)]
    assert list(away.walk()) == list(here.walk())


def test_an_address_with_options_and_odd_names_stands_alone():
    store = Store(fs.SubTreeFileSystem("/", fs.LocalFileSystem()), "/bucket", uri="s3://bucket/crops/?region=eu-west-1")
    assert store.child("a b").locate("50%.jpg") == "s3://bucket/crops/a%20b/50%25.jpg?region=eu-west-1"
    assert str(store) == "s3://bucket/crops?region=eu-west-1"
    assert open_file_store("/data/a b/50%.jpg")[1] == "50%.jpg"
    with pytest.raises(ValueError, match="holds credentials"):
        SourceConfig(format="folder", path="s3://key:secret@bucket/crops")


def test_addresses_that_do_not_work_are_named(tmp_path):
    with refused(DataError, str(tmp_path / "nothing")):
        open_store(tmp_path / "nothing")
    with refused(DataError, "nosuch://bucket"):
        open_store("nosuch://bucket")


@pytest.mark.parametrize(
    "options",
    [{"format": "folder", "boxes": "labeled"}, {"format": "folder", "pattern": "("}, {"format": "folder", "pattern": r"(?P<image_id>\d)"}],
)
def test_options_that_contradict_the_format_are_refused(options):
    with pytest.raises(ValueError, match=r"belongs to format|regular expression|image_id"):
        SourceConfig(path="x", **options)


@pytest.mark.parametrize("format", READERS)
def test_every_format_has_a_reader(format):
    assert callable(reader_of(format))


# Pictures elsewhere than published, and names that do not say the camera

JSON_SETS = ["cuhk_pedes", "icfg_pedes", "rstpreid", "ufine6926", "ufine3c", "webperson"]


@pytest.mark.parametrize("format", JSON_SETS)
def test_pictures_are_found_beside_their_annotations_or_in_a_folder_of_another_name(trees, format):
    folder = getattr(trees, format)()

    def found():
        images = read(format, folder)[0]
        return {image.image_id: (data_of(image), "pictures_elsewhere" in image.mended) for image in images}

    published = found()
    name = next(name for name in ("imgs", "images") if (folder / name).is_dir())
    other = {"imgs": "images", "images": "imgs"}[name]
    (folder / name).rename(folder / other)
    renamed = found()
    for inner in (folder / other).iterdir():
        inner.rename(folder / inner.name)
    (folder / other).rmdir()
    assert {False} == {mended for _, mended in published.values()}
    assert renamed == found() == {image_id: (data, True) for image_id, (data, _) in published.items()}


@pytest.mark.parametrize("format", [*JSON_SETS, "synth_pedes", "interactive_pedes", "ham_pedes", "mals", "itcpr", "syncpr"])
def test_a_tree_without_its_pictures_is_told_what_is_expected(trees, tmp_path, format):
    folder = getattr(trees, format)()
    bare = tmp_path / "bare"
    for file in folder.rglob("*.json"):
        (bare / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (bare / file.relative_to(folder)).write_bytes(file.read_bytes())
    first = next(image for image in read(format, folder)[0] if image.name)
    with refused(DataError, str(bare), f"{first.name.partition('/')[0]}/", first.name, "source.path"):
        read(format, bare)


def test_a_picture_that_is_missing_among_others_is_left_to_the_loader(trees):
    folder = trees.cuhk_pedes()
    images, _ = read("cuhk_pedes", folder)
    for image in images[:20]:
        image.store.local_path(image.name).unlink()
    assert [image.image_id for image in read("cuhk_pedes", folder)[0]] == [image.image_id for image in images]


def _with_odd_name(trees, format):
    """A tree in which one picture's name does not say its camera; (folder, that name)."""
    folder = getattr(trees, format)()
    if format in ("icfg_pedes", "rstpreid"):
        file = next(folder.glob("*.json"))
        entries = json.loads(file.read_text())
        key = "img_path" if format == "rstpreid" else "file_path"
        old = entries[0][key]
        entries[0][key] = old.rpartition("/")[0] + "/" * ("/" in old) + "somebody.jpg"
        (folder / "imgs" / old).rename(folder / "imgs" / entries[0][key])
        file.write_text(json.dumps(entries))
        return folder, entries[0][key]
    if format == "msmt17":
        lines = (folder / "list_train.txt").read_text().splitlines()
        old, pid = lines[0].split()
        (folder / "train" / old).rename(folder / "train" / "0000" / "somebody.jpg")
        (folder / "list_train.txt").write_text("\n".join([f"0000/somebody.jpg {pid}", *lines[1:]]))
        return folder, "train/0000/somebody.jpg"
    first = min((folder / "bounding_box_train").iterdir())
    first.rename(first.with_name("0001_somebody.jpg"))
    return folder, "bounding_box_train/0001_somebody.jpg"


@pytest.mark.parametrize("format", ["rstpreid", "icfg_pedes", "msmt17", "market1501", "dukemtmc"])
def test_a_name_that_says_no_camera_keeps_its_row_and_is_counted(trees, format):
    images, _ = read(format, getattr(trees, format)())
    folder, name = _with_odd_name(trees, format)
    odd = {image.image_id: image for image in read(format, folder)[0]}
    assert len(odd) == len(images)
    assert (odd[name].camera_id, odd[name].mended) == (None, ("camera_unknown",))
    assert (odd[name].person_id, odd[name].split) == (images[0].person_id, "train")
    assert [image.image_id for image in odd.values() if image.mended] == [name]
