"""Ingest: nothing is lost silently, nothing half-written stays, whatever is wrong with a source."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusals import refused

from reid_ray.data.config import LoadConfig
from reid_ray.data.failures import FAILURES
from reid_ray.data.fetch import load_all
from reid_ray.data.image_records import ImageRecord
from reid_ray.data.images import verify_image
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import ConfigError, DataError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import parquet_files, read_manifest, read_table, sha256_of
from reid_ray.storage.file_systems import open_store


def ingest(format, path, out, **options):
    source = {"format": format, "path": str(path), **options.pop("source", {})}
    config = {"source": source, "output": {"path": str(out), "if_exists": "replace"}, "load": {"processes": 0}, **options}
    return run_ingest(IngestJob.model_validate(config))


def tables(out):
    return read_table(out / "images", IMAGES), read_table(out / "captions", CAPTIONS), read_table(out / "failures", FAILURES)


def test_images_and_captions_arrive_with_everything_known_of_them(trees, people, tmp_path):
    manifest = ingest("cuhk_pedes", trees.cuhk_pedes(), tmp_path / "out")
    images, captions, failures = tables(tmp_path / "out")
    assert (images.num_rows, captions.num_rows, failures.num_rows) == (48, 97, 0)
    assert images["image"].to_pylist() == [person[0] for person in people]
    assert images["image_sha256"].to_pylist() == [sha256_of(person[0]) for person in people]
    assert set(zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True)) == {(32, 64)}
    assert captions["text"].to_pylist()[3:5] == people[1][1]
    assert len(set(captions["caption_id"].to_pylist())) == 97
    assert set(captions["kind"].to_pylist()) == {"human"}
    joined = captions.join(images.select(["image_id", "image_sha256", "split", "person_id"]), "image_id", right_suffix="_image")
    assert joined["image_sha256"].equals(joined["image_sha256_image"])
    assert joined["split"].equals(joined["split_image"])
    assert manifest["counts"] == {"read": 48, "written": 48, "failed": {}, "left_out": {}}
    assert manifest["facts"]["captions"] == {"read": 97, "written": 97, "failed": {}, "left_out": {}}
    assert manifest["facts"]["splits"]["train"] == {"images": 32, "identities": 8}


def test_the_last_line_is_words_and_names_the_failures_if_there_are_any(trees, tmp_path, capsys):
    folder, out = trees.cuhk_pedes(), tmp_path / "out"
    ingest("cuhk_pedes", folder, out)
    assert capsys.readouterr().out.strip() == f"ingest: images: read 48, written 48; captions: read 97, written 97 -> {out}"
    next((folder / "imgs" / "cam_b").iterdir()).write_bytes(b"")
    ingest("cuhk_pedes", folder, out)
    said = capsys.readouterr().out.strip()
    assert "images: read 48, written 47, failed 1 (empty 1); captions: read 97, written 95, failed 2 (image_failed 2)" in said
    assert f"{out}/failures" in said


def test_images_by_path_lie_where_the_row_says(trees, people, tmp_path):
    ingest("rstpreid", trees.rstpreid(), tmp_path / "out", images="path")
    images, _, _ = tables(tmp_path / "out")
    assert images["image"].null_count == 48
    assert Path(images["path"][7].as_py()).read_bytes() == people[7][0]
    again = ingest("parquet", tmp_path / "out", tmp_path / "bytes")
    assert again["counts"]["written"] == 48
    assert tables(tmp_path / "bytes")[0]["image"].to_pylist() == [person[0] for person in people]


def test_a_foreign_table_with_other_column_names_and_relative_paths(people, tmp_path):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.jpg").write_bytes(people[0][0])
    foreign = pa.table({"key": ["a", "b"], "jpg": [None, people[1][0]], "path": ["crops/a.jpg", None], "pid": [3, 4]})
    pq.write_table(foreign, tmp_path / "foreign.parquet")
    columns = {"image_id": "key", "image": "jpg", "person_id": "pid"}
    ingest("parquet", tmp_path, tmp_path / "out", source={"columns": columns, "name": "foreign"})
    images, _, _ = tables(tmp_path / "out")
    assert images["image"].to_pylist() == [people[0][0], people[1][0]]
    assert images["person_id"].to_pylist() == [3, 4]
    with refused(DataError, "column id", "source.columns"):
        ingest("parquet", tmp_path, tmp_path / "no", source={"columns": {"image_id": "id"}})


def test_a_kept_path_is_refused_where_images_are_no_files(trees, tmp_path):
    with pytest.raises(DataError, match="this image is no file of its own"):
        ingest("luperson", trees.luperson_lmdb(), tmp_path / "out", images="path")
    with pytest.raises(ValueError, match="are no files of their own"):
        IngestJob.model_validate({"source": {"format": "webdataset", "path": "x"}, "images": "path", "output": {"path": "y"}})


@pytest.mark.slow
def test_every_unusable_image_is_a_counted_row_with_its_captions(trees, people, tmp_path):
    folder = trees.cuhk_pedes()
    entries = json.loads((folder / "reid_raw.json").read_text())
    names = [folder / "imgs" / entry["file_path"] for entry in entries]
    names[1].unlink()
    names[2].write_bytes(b"")
    names[3].write_text("a text file named .jpg")
    names[4].write_bytes(people[4][0][:-200])
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    names[5].write_bytes(bomb.getvalue())
    entries[6]["captions"] = [None, "a person in red"]
    entries.append(dict(entries[8]))
    (folder / "reid_raw.json").write_text(json.dumps(entries))
    manifest = ingest("cuhk_pedes", folder, tmp_path / "out")
    images, captions, failures = tables(tmp_path / "out")
    expected = dict.fromkeys(["missing", "empty", "not_an_image", "truncated", "too_many_pixels", "repeated_id"], 1)
    assert manifest["counts"] == {"read": 49, "written": 43, "failed": expected, "left_out": {}}
    assert dict(Counter(failures["reason"].to_pylist())) == expected
    assert images.num_rows + failures.num_rows == 49
    lost = failures.filter(pc.equal(failures["reason"], "missing")).to_pylist()[0]
    assert lost["captions"] == people[1][1]
    assert lost["path"] == str(names[1])
    failed = captions.filter(pc.equal(captions["status"], "failed")).to_pylist()
    assert [(row["text"], row["reason"]) for row in failed] == [(None, "null_caption")]
    assert manifest["facts"]["captions"]["failed"] == {"image_failed": 12, "null_caption": 1}
    assert manifest["facts"]["captions"]["read"] == 99
    rerun = ingest("parquet", tmp_path / "out", tmp_path / "again")
    assert rerun["counts"] == manifest["counts"]
    assert rerun["facts"]["captions"] == manifest["facts"]["captions"]


def test_header_check_is_cheaper_and_lets_truncated_files_pass(trees, people, tmp_path):
    folder = trees.market1501()
    (folder / "query" / "0011_c1s1_000099_00.jpg").write_bytes(people[0][0][:700])
    assert ingest("market1501", folder, tmp_path / "a")["counts"]["failed"]["truncated"] == 1
    assert "truncated" not in ingest("market1501", folder, tmp_path / "b", load={"check": "header", "processes": 0})["counts"]["failed"]


def test_names_and_texts_that_are_no_unicode_are_stored_escaped(people, tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(people[0][0])
    ingest("folder", folder, tmp_path / "out")
    assert tables(tmp_path / "out")[0]["image_id"].to_pylist() == ["caf\\xe9.jpg"]


def test_numbers_that_no_column_holds_are_counted(people, tmp_path):
    (tmp_path / "crops").mkdir()
    for name in ("20240131235959999123_c1.jpg", "7_c99999999999.jpg", "7_c1.jpg"):
        (tmp_path / "crops" / name).write_bytes(people[0][0])
    manifest = ingest("folder", tmp_path / "crops", tmp_path / "out", source={"pattern": r"(?P<person_id>\d+)_c(?P<camera_id>\d+)"})
    assert manifest["counts"] == {"read": 3, "written": 1, "failed": {"id_out_of_range": 2}, "left_out": {}}


def test_numbers_that_no_column_holds_do_not_hide_another_reason(people, tmp_path):
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "0000_c1_0000.jpg").write_bytes(people[0][0])
    good = {"id": 1, "img_path": "0000_c1_0000.jpg", "captions": ["A man."], "split": "train"}
    entries = [good, good | {"id": 2.0**63, "split": 7}, good | {"id": 2**63}]
    (tmp_path / "data_captions.json").write_text(json.dumps(entries))
    counts = ingest("rstpreid", tmp_path, tmp_path / "out")["counts"]
    assert counts == {"read": 3, "written": 1, "failed": {"bad_annotation": 1, "repeated_id": 1}, "left_out": {}}


def test_a_source_without_a_usable_image_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.jpg").write_text("no image")
    with refused(DataError, "not_an_image 1"):
        ingest("folder", tmp_path / "crops", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["crops"]


def test_an_exception_half_way_leaves_the_old_output(trees, tmp_path):
    folder = trees.cuhk_pedes()
    ingest("cuhk_pedes", folder, tmp_path / "out")
    before = read_manifest(tmp_path / "out")
    text = (folder / "reid_raw.json").read_text()
    (folder / "reid_raw.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="not whole JSON"):
        ingest("cuhk_pedes", folder, tmp_path / "out")
    assert read_manifest(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


@pytest.mark.slow
def test_a_killed_job_leaves_no_output_folder(people, tmp_path, root):
    folder = tmp_path / "crops"
    folder.mkdir()
    for index in range(3000):
        (folder / f"{index}.jpg").symlink_to(tmp_path / "crop.jpg")
    (tmp_path / "crop.jpg").write_bytes(people[0][0])
    command = [sys.executable, "jobs/ingest.py", "source.format=folder", f"source.path={folder}", f"output.path={tmp_path}/out"]
    process = subprocess.Popen([*command, "load.processes=1"], cwd=root, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".out.*.partial")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_signal_to_the_whole_group_is_answered_by_the_job_and_not_by_its_workers(tmp_path, root):
    (tmp_path / "crops").mkdir()
    Image.effect_noise((1200, 1200), 100).save(tmp_path / "noise.png")
    for index in range(300):
        os.link(tmp_path / "noise.png", tmp_path / "crops" / f"{index}.png")
    command = [sys.executable, "jobs/ingest.py", "source.format=folder", f"source.path={tmp_path}/crops", f"output.path={tmp_path}/out"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen([*command, "load.processes=1"], cwd=root, stdout=said, stderr=said, start_new_session=True)
    workers = f"/proc/{process.pid}/task/{process.pid}/children"
    while process.poll() is None and len(Path(workers).read_text().split()) < 2:  # one keeps account of resources, one reads
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert "Traceback" not in (tmp_path / "said").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "noise.png", "said"]


def test_reuse_runs_once_and_limit_takes_the_first(trees, people, tmp_path):
    config = {
        "source": {"format": "market1501", "path": str(trees.market1501())},
        "limit": 5,
        "output": {"path": str(tmp_path / "out"), "if_exists": "reuse"},
    }
    first = run_ingest(IngestJob.model_validate(config))
    assert first["counts"]["written"] == 5
    assert run_ingest(IngestJob.model_validate(config)) == first


@pytest.mark.slow
def test_parts_are_bounded_by_bytes(trees, tmp_path):
    ingest("cuhk_pedes", trees.cuhk_pedes(), tmp_path / "out")
    assert len(parquet_files(tmp_path / "out" / "images")) == 1
    big = trees.root / "big"
    big.mkdir()
    for index in range(6):
        Image.effect_noise((700, 700), 90).save(big / f"{index}.png")
    ingest("folder", big, tmp_path / "parts", part_mb=1)
    assert len(parquet_files(tmp_path / "parts" / "images")) >= 2
    assert tables(tmp_path / "parts")[0].num_rows == 6


@pytest.mark.slow
def test_processes_give_what_one_process_gives_in_order(people, tmp_path, monkeypatch):
    monkeypatch.setattr("reid_ray.data.fetch._INLINE_S", 0)
    (tmp_path / "bad.jpg").write_text("no image")
    store = open_store(tmp_path)
    records = [
        ImageRecord(f"{index}", "set", data=people[index % 48][0]) if index % 7 else ImageRecord(f"{index}", "set", store, "bad.jpg")
        for index in range(900)
    ]
    results = []
    for load, remote in ((LoadConfig(processes=0), False), (LoadConfig(processes=2), False), (LoadConfig(threads=4), True)):
        rows = load_all(iter(records), partial(verify_image, max_pixels=10**6), load, remote=remote, max_bytes=1 << 20)
        results.append([(getattr(row, "reason", None), getattr(row, "sha256", None), getattr(row, "found", None)) for row in rows])
    assert len(results[0]) == 900
    assert results[0][7] == ("not_an_image", None, None)
    assert results[0] == results[1] == results[2]


def test_files_beyond_the_byte_limit_fail_before_they_are_held(tmp_path):
    (tmp_path / "big.jpg").write_bytes(bytes(3000))
    rows = load_all([ImageRecord("big", "set", open_store(tmp_path), "big.jpg")], len, LoadConfig(), remote=False, max_bytes=1000)
    assert [row.reason for row in rows] == ["too_many_bytes"]


def test_the_command_line_runs_a_shipped_config(trees, tmp_path, capsys):
    from reid_ray.config.base import load_config

    config = load_config(
        IngestJob, "jobs/configs/data/ingest_rstpreid.yaml", [f"source.path={trees.rstpreid()}", f"output.path={tmp_path}/out"]
    )
    run_ingest(config)
    assert "read 48, written 48" in capsys.readouterr().out
    with refused(ConfigError, "source.formt"):
        load_config(IngestJob, None, ["source.formt=folder"])
