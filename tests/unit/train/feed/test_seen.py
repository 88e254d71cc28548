"""What a training writes down of what it has seen: pictures and texts that it used, no others; and what its validation shares with it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from reid_ray.config.base import load_config
from reid_ray.records import CAPTIONS, IMAGES, SEEN, table_of, text_hash64
from reid_ray.retrieval.evaluate.exposure import exposure_sentence
from reid_ray.retrieval.evaluate.shown import read_pictures
from reid_ray.storage import Counts, read_table, sha256_of, write_json
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.seen import publish_seen, validation_exposure


def picture(seed: int, quality: int = 90) -> bytes:
    grey = np.random.default_rng(seed).integers(0, 255, (8, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).resize((48, 96), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def image(name: str, split: str, person: int, data: bytes) -> dict:
    content = {"image": data, "image_sha256": sha256_of(data)}
    return {"image_id": name, **content, "split": split, "person_id": person, "dataset": "CUHK-PEDES"}


def caption(name: str, of: str, text: str, parent: str | None = None) -> dict:
    kind = "human" if parent is None else "rewrite"
    return {"caption_id": name, "image_id": of, "kind": kind, "text": text, "status": "ok", "parent_id": parent}


def prepared(folder: Path, images: list[dict], captions: list[dict]) -> Path:
    for name, schema, rows in (("images", IMAGES, images), ("captions", CAPTIONS, captions)):
        pq.write_table(table_of(schema, rows), folder / f"{name}.parquet")
    paths = [f"images.path={folder}/images.parquet", f"captions.paths=[{folder}/captions.parquet]", f"output.path={folder}/out"]
    (folder / "data").mkdir()
    prepare_pairs(load_config(TrainJob, None, [*paths, "batches.size=2", "workers.count=1"]), folder / "data", Counts())
    return folder / "data"


TRAIN = [image("a", "train", 1, picture(1)), image("b", "train", 2, picture(2))]
SAID = [caption("ca", "a", "A man in red."), caption("cb", "b", "A woman."), caption("ra", "a", "Someone in red.", parent="ca")]


def test_what_was_used_is_written_down_and_nothing_else(tmp_path):
    unused = [image("silent", "train", 3, picture(3)), image("t", "test", 4, picture(4)), image("broken", "train", 5, picture(5)[:-9])]
    val = image("v", "val", 6, picture(6))
    others = [caption("cv", "v", "Validated."), caption("ct", "t", "Tested."), caption("cx", "broken", "Broken.")]
    data = prepared(tmp_path, [*TRAIN, *unused, val], [*SAID, *others])
    seen = read_table(data / "seen.parquet", SEEN)
    by = {
        (role, kind): seen.filter(pc.and_(pc.equal(seen["role"], role), pc.equal(seen["kind"], kind)))
        for role in ("train", "val")
        for kind in ("image", "text")
    }
    for role, images, texts in (("train", TRAIN, ["a man in red", "a woman", "someone in red"]), ("val", [val], ["validated"])):
        expected = [int.from_bytes(bytes.fromhex(each["image_sha256"][:16]), "big", signed=True) for each in images]
        assert by[role, "image"]["content"].to_pylist() == expected
        assert by[role, "image"]["person_id"].to_pylist() == [each["person_id"] for each in images]
        assert by[role, "text"]["content"].to_pylist() == text_hash64(pa.array(texts)).tolist()
    assert sum(table.num_rows for table in by.values()) == seen.num_rows
    assert seen["near"].null_count == sum(kind == "text" for kind in seen["kind"].to_pylist())


def test_from_which_data_set_a_mixed_one_took_a_picture_is_written_down(tmp_path):
    """By who trains and by who asks alike."""
    taken = {**image("c", "train", 3, picture(3)), "dataset": "ITCPR", "attributes": json.dumps({"instance_id": 1, "datasets": "PRCC"})}
    others = {**image("d", "train", 4, picture(4)), "attributes": json.dumps({"source": "a shop"})}
    said = [caption("cc", "c", "New."), caption("cd", "d", "Newer."), caption("cv", "v", "Validated.")]
    data = prepared(tmp_path, [*TRAIN, taken, others, image("v", "val", 6, picture(6))], [*SAID, *said])
    expected = [("CUHK-PEDES", None), ("CUHK-PEDES", None), ("ITCPR", "PRCC"), ("CUHK-PEDES", None)]
    asked = read_pictures(str(tmp_path / "images.parquet"), "train", max_pixels=1 << 20)
    for rows in (read_table(data / "seen.parquet", SEEN), asked.rows):
        told = [(row["dataset"], row["source"]) for row in rows.to_pylist() if row["role"] != "val" and row["kind"] == "image"]
        assert told == expected


@pytest.mark.slow
def test_validation_that_holds_what_is_learnt_from_says_so(tmp_path):
    (tmp_path / "clean").mkdir()
    apart = prepared(tmp_path / "clean", [*TRAIN, image("v", "val", 6, picture(6))], [*SAID, caption("cv", "v", "Validated.")])
    found = validation_exposure(apart, {})
    assert (found["images"], found["queries"]["texts"], found["marks"]) == (1, 1, [])
    again = [image("v", "val", 6, picture(6)), image("w", "val", 7, picture(1, quality=60)), image("x", "val", 8, picture(2))]
    said = [caption("cv", "v", "A woman!"), caption("cw", "w", "New."), caption("cx", "x", "Newer.")]
    (tmp_path / "leaks").mkdir()
    found = validation_exposure(prepared(tmp_path / "leaks", [*TRAIN, *again], [*SAID, *said]), {})
    assert found["train"] == {"images": 1, "near": 1, "identities": 0, "texts": None}  # trained persons are refused before that
    assert found["queries"]["train"]["texts"] == 1
    assert found["val"] == {"images": 0, "near": 0, "identities": 0, "texts": None}  # that it is itself is no news
    assert found["marks"] == ["SEEN", "TEXTS"]
    assert "WARNING" in exposure_sentence(found, of="the validation images")


@pytest.mark.slow
def test_weights_that_another_run_chose_on_these_people_pass_that_on(tmp_path):
    for name, split in (("first", "val"), ("second", "train")):
        (tmp_path / name).mkdir()
        other = [image("v", split, 6, picture(6)), image("w", "val", 9, picture(9))]
        prepared(tmp_path / name, [*TRAIN, *other], [*SAID, caption("cv", "v", "Validated."), caption("cw", "w", "More.")])
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "manifest.json", {"kind": "dual-encoder", "fingerprint": "w"})
    publish_seen(tmp_path / "first" / "data", tmp_path / "model", {})
    found = validation_exposure(tmp_path / "second" / "data", {"init": tmp_path / "model"})
    assert (found["train"]["images"], found["val"]["images"]) == (0, 1)
    assert found["marks"] == ["SEEN", "TEXTS"]
    assert validation_exposure(tmp_path / "second" / "data", {"init": tmp_path / "nowhere"})["marks"] == ["UNKNOWN"]
    write_json(tmp_path / "model" / "manifest.json", {"kind": "dual-encoder", "fingerprint": "others, copied over them"})
    assert validation_exposure(tmp_path / "second" / "data", {"init": tmp_path / "model"})["marks"] == ["UNKNOWN"]


def test_data_that_an_older_version_prepared_are_compared_by_what_they_tell(tmp_path):
    data = prepared(tmp_path, [*TRAIN, image("v", "val", 6, picture(1))], [*SAID, caption("cv", "v", "A woman.")])
    older = read_table(data / "seen.parquet", SEEN).filter(pc.equal(read_table(data / "seen.parquet", SEEN)["kind"], "image"))
    pq.write_table(older.select(["role", "content", "dataset", "person_id"]).replace_schema_metadata(None), data / "seen.parquet")
    found = validation_exposure(data, {})
    assert (found["train"]["images"], found["train"]["near"]) == (1, 0)
    assert found["marks"] == ["SEEN", "UNKNOWN"]
    (data / "seen.parquet").unlink()
    assert validation_exposure(data, {}) is None
