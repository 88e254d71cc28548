"""Export: every published layout goes round, in its own names, and what has no place in one is counted."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusals import refused

from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import read_table

OURS = {"manifest.json", ".reid_ray", "image_names.jsonl"}


def ingest(format, path, out, **source):
    config = {"source": {"format": format, "path": str(path), **source}, "output": {"path": str(out)}, "load": {"processes": 0}}
    return run_ingest(IngestJob.model_validate(config))


def export(tables, format, out, **options):
    config = {"tables": str(tables), "format": format, "output": {"path": str(out)}, "processes": 0, **options}
    return run_export(ExportJob.model_validate(config))


def images_of(out):
    """What a published layout can say of an image, in the order of its ids."""
    return (
        read_table(out / "images", IMAGES).select(["image_id", "image", "dataset", "split", "person_id", "camera_id"]).sort_by("image_id")
    )


def files_of(folder):
    """{relative path: content} of a data set's folder, without the project's own files."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and path.name not in OURS)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def written(folder):
    """What lies in an exported folder."""
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()} - OURS


@pytest.mark.parametrize(
    ("format", "file"), [("cuhk_pedes", "reid_raw.json"), ("icfg_pedes", "ICFG-PEDES.json"), ("rstpreid", "data_captions.json")]
)
def test_caption_data_sets_go_round(trees, tmp_path, format, file):
    folder = getattr(trees, format)()
    ingest(format, folder, tmp_path / "tables")
    manifest = export(tmp_path / "tables", format, tmp_path / "back")
    drop = lambda entries: [{key: entry[key] for key in entry if key != "processed_tokens"} for entry in entries]  # noqa: E731
    before, after = (json.loads((root / file).read_text()) for root in (folder, tmp_path / "back"))
    assert drop(after) == drop(before)
    assert [set(entry) for entry in after] == [set(entry) for entry in before]
    assert manifest["counts"]["written"] == 48
    for entry in before:
        name = entry.get("file_path") or entry["img_path"]
        assert (tmp_path / "back" / "imgs" / name).read_bytes() == (folder / "imgs" / name).read_bytes()


def test_luperson_mllm_goes_round(trees, tmp_path):
    folder = trees.luperson_mllm()
    ingest("luperson_mllm", folder, tmp_path / "tables")
    export(tmp_path / "tables", "luperson_mllm", tmp_path / "back")
    for file in ("Ts-qwen", "Td-qwen", "Ts-shikra", "Td-shikra"):
        before, after = (json.loads((root / f"{file}.json").read_text()) for root in (folder, tmp_path / "back"))
        assert after == {name.rpartition("/")[2]: text for name, text in before.items()}
    assert ingest("luperson_mllm", tmp_path / "back", tmp_path / "again")["counts"]["written"] == 24


def test_a_failed_dynamic_caption_has_its_static_one_in_both_files_of_luperson_mllm(trees, tmp_path):
    ingest("luperson_mllm", trees.luperson_mllm(), tmp_path / "tables")
    table = read_table(tmp_path / "tables" / "captions", CAPTIONS)
    rows = table.to_pylist()
    broken = next(row for row in rows if row["kind"] == "dynamic" and row["captioner"] == "qwen")
    static = next(row for row in rows if row["image_id"] == broken["image_id"] and row["kind"] == "static" and row["captioner"] == "qwen")
    broken.update(text=None, status="failed", reason="refusal")
    (tmp_path / "failed" / "captions").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=CAPTIONS), tmp_path / "failed" / "captions" / "part.parquet")
    export(tmp_path / "tables", "luperson_mllm", tmp_path / "back", captions=str(tmp_path / "failed"))
    name = broken["image_id"].rpartition("/")[2]
    for file in ("Ts-qwen", "Td-qwen"):
        assert json.loads((tmp_path / "back" / f"{file}.json").read_text())[name] == static["text"]


def test_market_goes_round_as_tar_shards(trees, tmp_path):
    ingest("market1501", trees.market1501(), tmp_path / "tables")
    assert export(tmp_path / "tables", "webdataset", tmp_path / "back", samples_per_shard=20)["counts"]["written"] == 50
    ingest("webdataset", tmp_path / "back", tmp_path / "again", name="Market-1501")
    before, after = (images_of(tmp_path / name) for name in ("tables", "again"))
    assert after.equals(before)


def test_luperson_goes_round_as_lmdb(trees, tmp_path):
    ingest("luperson", trees.luperson_lmdb(), tmp_path / "tables")
    export(tmp_path / "tables", "luperson", tmp_path / "back")
    ingest("luperson", tmp_path / "back", tmp_path / "again")
    assert images_of(tmp_path / "again").equals(images_of(tmp_path / "tables"))


def test_rows_that_a_layout_cannot_express_are_counted(trees, tmp_path):
    ingest("market1501", trees.market1501(), tmp_path / "tables")
    with refused(DataError, "cuhk_pedes", "no_caption 24", "no_image_file 1", "split_not_in_layout 26"):
        export(tmp_path / "tables", "cuhk_pedes", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    ingest("luperson_mllm", trees.luperson_mllm(), tmp_path / "mllm")
    facts = export(tmp_path / "mllm", "luperson_mllm", tmp_path / "static", kinds=["static"])["facts"]
    assert facts["captions"] == {"written": 48, "left_out": {"kind": 48, "not_ok": 0}}
    assert sorted(path.name for path in (tmp_path / "static").glob("*.json")) == ["Ts-qwen.json", "Ts-shikra.json", "manifest.json"]


def groups_of(rows):
    """Who is one person on each side of training and test, by the pictures, whatever the persons' numbers are."""
    people = {}
    for row in rows:
        picture = (row["image_sha256"], row["split"], row["camera_id"])
        people.setdefault((row["split"] == "train", row["person_id"]), []).append(picture)
    return sorted(sorted(person) for person in people.values())


# Image-based data sets: the same files under the same names, byte for byte, and the same tables again

REID = {
    "market1501": (lambda trees: trees.market1501(), {}, {}),
    "dukemtmc": (lambda trees: trees.dukemtmc(), {}, {}),
    "msmt17": (lambda trees: trees.msmt17("V1"), {}, {}),
    "msmt17-v2": (lambda trees: trees.msmt17("V2"), {}, {"msmt17_version": "V2"}),
    "cuhk03": (lambda trees: trees.cuhk03("market", "detected") / "detected", {}, {}),
    "cuhk03_images": (lambda trees: trees.cuhk03("images", "labeled"), {"boxes": "labeled"}, {"boxes": "labeled"}),
}


@pytest.mark.parametrize("case", REID)
def test_image_based_data_sets_go_round_under_their_own_names(trees, tmp_path, case):
    make, reading, writing = REID[case]
    format = case.partition("-")[0]
    folder, read_as = make(trees), format.removesuffix("_images")
    ingest(read_as, folder, tmp_path / "tables", **reading)
    manifest = export(tmp_path / "tables", format, tmp_path / "back", **writing)
    assert not manifest["counts"]["failed"]
    assert set(manifest["counts"]["left_out"]) <= {"junk", "no_image_file"}
    before, after = files_of(folder), files_of(tmp_path / "back" / "detected" if format == "cuhk03" else tmp_path / "back")
    dropped = {name for name in before if "/-1_" in name or name.endswith("Thumbs.db")}
    assert {name: data for name, data in after.items() if not name.endswith(".mat")} == {
        name: data for name, data in before.items() if name not in dropped and not name.endswith(".mat")
    }
    again = ingest(read_as, tmp_path / "back", tmp_path / "again", **reading)
    assert again["counts"]["written"] == again["counts"]["read"]
    assert images_of(tmp_path / "again").equals(images_of(tmp_path / "tables"))


def test_cuhk03s_protocol_file_says_what_the_published_one_says(trees, tmp_path):
    from scipy.io import loadmat

    folder = trees.cuhk03("images", "labeled")
    ingest("cuhk03", folder, tmp_path / "tables", boxes="labeled")
    export(tmp_path / "tables", "cuhk03_images", tmp_path / "back", boxes="labeled")
    name = "cuhk03_new_protocol_config_labeled.mat"
    before, after = (loadmat(root / name) for root in (folder, tmp_path / "back"))
    for key in ("labels", "camId", "train_idx", "query_idx", "gallery_idx"):
        assert after[key].tolist() == before[key].tolist()
        assert after[key].dtype == before[key].dtype
    assert [cell[0].item() for cell in after["filelist"]] == [cell[0].item() for cell in before["filelist"]]


def test_the_release_of_cuhk03_comes_back_as_extracted_images(trees, tmp_path):
    ingest("cuhk03", trees.cuhk03("release", "detected"), tmp_path / "tables")
    export(tmp_path / "tables", "cuhk03_images", tmp_path / "back")
    ingest("cuhk03", tmp_path / "back", tmp_path / "again")
    assert images_of(tmp_path / "again").equals(images_of(tmp_path / "tables"))


@pytest.mark.parametrize(
    ("format", "pattern"),
    [
        ("market1501", r"(bounding_box_train|query|bounding_box_test)/\d{4}_c[1-6]s1_\d{6}_00\.jpg"),
        ("dukemtmc", r"(bounding_box_train|query|bounding_box_test)/\d{4}_c[1-8]_f\d{7}\.jpg"),
        ("msmt17", r"((train|test)/(\d{4})/\3_\d{3}_\d{2}_0303morning_\d{4}_0\.jpg|list_(train|val|query|gallery)\.txt)"),
    ],
)
def test_other_peoples_images_get_names_of_the_layout_and_stay_who_they_are(trees, tmp_path, format, pattern):
    source = "dukemtmc" if format == "market1501" else "market1501"
    folder = getattr(trees, source)()
    ingest(source, folder, tmp_path / "tables")
    manifest = export(tmp_path / "tables", format, tmp_path / "back")
    # Duke has cameras 5 to 8 here, Market knows 1 to 6
    failed, left_out = ({"camera_not_in_layout": 24}, {}) if source == "dukemtmc" else ({}, {"junk": 2, "no_image_file": 1})
    assert (manifest["counts"]["failed"], manifest["counts"]["left_out"]) == (failed, left_out)
    assert not [name for name in written(tmp_path / "back") if not re.fullmatch(pattern, name)]
    again = ingest(format, tmp_path / "back", tmp_path / "again")
    assert again["counts"]["written"] == again["counts"]["read"]
    before, after = (read_table(tmp_path / name / "images", IMAGES).to_pylist() for name in ("tables", "again"))
    kept = [row for row in before if row["camera_id"] <= (6 if format == "market1501" else 99)]
    assert groups_of(after) == groups_of(kept)


def test_msmt17_numbers_people_once_and_refuses_a_name_of_another_person(trees, tmp_path):
    folder = trees.msmt17()
    text = (folder / "list_gallery.txt").read_text().splitlines()
    wrong = [line.rpartition(" ")[0] + " 0" if line.endswith(" 3") else line for line in text]  # person 3's pictures given to person 0
    (folder / "list_gallery.txt").write_text("\n".join(wrong))
    ingest("msmt17", folder, tmp_path / "tables")
    failed = export(tmp_path / "tables", "msmt17", tmp_path / "back")["counts"]["failed"]
    assert failed == {"name_of_another_person": sum(line.endswith(" 3") for line in text)}
    for file in ("train", "val", "query"):
        assert (tmp_path / "back" / f"list_{file}.txt").read_bytes() == (folder / f"list_{file}.txt").read_bytes()


def test_images_of_another_kind_are_counted_and_never_encoded_again(trees, tmp_path):
    folder = trees.market1501()
    Image.new("RGB", (32, 64)).save(folder / "query" / "x.png")
    (folder / "query" / "x.png").rename(folder / "query" / "0011_c1s1_777777_00.jpg")
    ingest("market1501", folder, tmp_path / "tables")
    assert export(tmp_path / "tables", "market1501", tmp_path / "back")["counts"]["failed"]["not_jpeg"] == 1
    counts = export(tmp_path / "tables", "cuhk03", tmp_path / "png")["counts"]
    assert counts["failed"] == {"camera_not_in_layout": 24, "not_png": 26}
    assert counts["left_out"] == {"junk": 2, "no_image_file": 1}
    assert written(tmp_path / "png") == {"detected/query/0011_c1_1.png"}


def test_options_of_another_layout_are_refused():
    with pytest.raises(ValueError, match="boxes belongs to format cuhk03 or cuhk03_images, but format is msmt17"):
        ExportJob.model_validate({"tables": "t", "format": "msmt17", "boxes": "labeled", "output": {"path": "o"}})


@pytest.mark.parametrize("format", ["rstpreid", "msmt17", "market1501", "dukemtmc"])
def test_a_picture_of_unknown_camera_goes_round_with_what_is_known(trees, tmp_path, format):
    folder = getattr(trees, format)()
    if format == "rstpreid":
        file = folder / "data_captions.json"
        odd = json.loads(file.read_text())[0]["img_path"]
        file.write_text(file.read_text().replace(odd, "somebody.jpg"))
        (folder / "imgs" / odd).rename(folder / "imgs" / "somebody.jpg")
    elif format == "msmt17":
        file = folder / "list_train.txt"
        odd = file.read_text().split()[0]
        file.write_text(file.read_text().replace(odd, "0000/somebody.jpg"))
        (folder / "train" / odd).rename(folder / "train" / "0000" / "somebody.jpg")
    else:
        first = min((folder / "bounding_box_train").iterdir())
        first.rename(first.with_name("0001_somebody.jpg"))
    told = ingest(format, folder, tmp_path / "tables")
    assert told["facts"]["mended"] == {"camera_unknown": 1}
    assert not set(export(tmp_path / "tables", format, tmp_path / "back")["counts"]["failed"]) - {"junk", "no_image_file"}
    assert ingest(format, tmp_path / "back", tmp_path / "again")["facts"]["mended"] == {"camera_unknown": 1}
    assert images_of(tmp_path / "again").equals(images_of(tmp_path / "tables"))
