"""A watched run: it stops when validation stands still, and other data sets are scored on val on the way and on test once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, EDITS, IMAGES, SEEN, table_of
from reid_ray.storage import TableWriter, read_manifest, read_table
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train
from reid_ray.train.log.run_log import read_metrics

pytestmark = pytest.mark.slow
SHAPE = {"vision_width": 32, "vision_layers": 1, "text_width": 32, "text_layers": 1, "embed_dim": 16, "vocab_size": 400, "context": 32}
NEW_PERSON = 1 << 52


def _write(folder, dataset: str, seed: int) -> None:
    made = SyntheticPeople(SyntheticConfig(identities=16, images_per_identity=2, seed=seed, val_share=0.25, test_share=0.3))
    images, captions = made.image_table(), made.caption_table()
    at = images.column_names.index("dataset")
    images = images.set_column(at, IMAGES.field("dataset"), pa.array([dataset] * images.num_rows))
    with TableWriter(folder / "images", IMAGES) as written:
        written.append(images)
    with TableWriter(folder / "captions", CAPTIONS) as written:
        # One picture of the gallery that no caption speaks of: it must still be in everybody's way.
        silent = images.filter(pc.equal(images["split"], "val"))["image_id"][0]
        written.append(captions.filter(pc.not_equal(captions["image_id"], silent)))


def _write_edited(folder) -> int:
    """Of every fourth picture one of somebody new, val and test people's too, as an edit job leaves them; returns how many are of train."""
    images = read_table(folder / "images", IMAGES).to_pylist()[::4]
    text = {row["image_id"]: row["text"] for row in read_table(folder / "captions", CAPTIONS).to_pylist()}
    rows: dict[str, list[dict]] = {"images": [], "captions": [], "edits": []}
    for image in images:
        who = {"image_id": f"edited/{image['image_id']}", "person_id": NEW_PERSON + image["person_id"], "synthetic": True, "split": "train"}
        rows["images"].append({**image, **who, "image_sha256": None})
        said = {"caption_id": who["image_id"], "kind": "human", "text": text.get(image["image_id"], "Somebody."), "status": "ok"}
        rows["captions"].append({**said, **who, "dataset": image["dataset"]})
        source = {"source_image_id": image["image_id"], "source_person_id": image["person_id"]}
        rows["edits"].append({"edit_id": who["image_id"], **who, **source, "dataset": image["dataset"], "editor": "e", "status": "ok"})
    (folder / "edited").mkdir()
    for name, schema in (("images", IMAGES), ("captions", CAPTIONS), ("edits", EDITS)):
        pq.write_table(table_of(schema, rows[name]), folder / "edited" / f"{name}.parquet")
    return sum(image["split"] == "train" for image in images)


def _scores(model, folder, split: str) -> tuple[float, float, int]:
    """R@1, mAP and gallery size by a double loop over the tables."""
    encoder = load_encoder(model)
    images = [row for row in read_table(folder / "images", IMAGES).to_pylist() if row["split"] == split]
    person = {row["image_id"]: row["person_id"] for row in images}
    captions = [row for row in read_table(folder / "captions", CAPTIONS).to_pylist() if row["image_id"] in person]
    score_QG = encoder.encode_texts([row["text"] for row in captions]) @ encoder.encode_images([decode_image(r["image"]) for r in images]).T
    hits, precisions = [], []
    for row, score_G in zip(captions, score_QG, strict=True):
        right = [images[index]["person_id"] == person[row["image_id"]] for index in np.argsort(-score_G, kind="stable")]
        hits.append(right[0])
        precisions.append(np.mean([(sum(right[: rank + 1])) / (rank + 1) for rank, good in enumerate(right) if good]))
    return float(np.mean(hits)), float(np.mean(precisions)), len(images)


def test_a_run_stops_without_better_scores_and_reports_other_data_sets(local_ray, tmp_path):
    _write(tmp_path / "own", "CUHK-PEDES", seed=0)
    edited = _write_edited(tmp_path / "own")
    _write(tmp_path / "other", "Market-1501", seed=1)
    made = tmp_path / "own" / "edited"
    others = f"[{{name: Market-1501, images: {tmp_path}/other/images, captions: {tmp_path}/other/captions}}]"
    values = [
        f"images={{path: {tmp_path}/own/images, select_by: map, further: [{made}/images.parquet], edits: [{made}/edits.parquet]}}",
        f"captions={{paths: [{tmp_path}/own/captions, {made}/captions.parquet], rewrite_share: 0}}",
        f"model={{image_height: 64, image_width: 32, scratch: {SHAPE}}}",
        "batches={size: 8, edited_share: 0.25}",
        "optimizer.lr=1.0e-30",  # nothing moves in float32, so no validation is better than the first
        "schedule={epochs: 30, validate_every: epoch, patience: 2, log_every: 1}",
        "workers={count: 1, num_cpus: 0.5}",
        "log.peak_tflops=0.001",
        f"output.path={tmp_path}/out",
    ]
    manifest = run_train(load_config(TrainJob, None, [*values, f"transfer={others}"]))
    lines = read_metrics(tmp_path / "out")
    each = manifest["facts"]["steps_per_epoch"]
    photographs = [row for row in read_table(tmp_path / "own" / "captions", CAPTIONS).to_pylist() if row["split"] == "train"]
    assert each == len(photographs) // 6  # two of a batch's eight were made by an editor
    assert manifest["facts"]["edited_samples"] == edited > 2
    assert manifest["counts"]["left_out"]["source_held_out"] > 0  # those made of people of val or test
    assert (
        max(each for each in read_table(tmp_path / "out" / "model" / "seen.parquet", SEEN)["person_id"].to_pylist() if each) >= NEW_PERSON
    )
    assert [line["step"] for line in lines if line.get("kind") == "validation"] == [each, 2 * each, 3 * each]
    assert next(line for line in lines if line.get("event") == "early_stop")["best_step"] == each
    assert manifest["facts"]["steps"] == 3 * each
    assert manifest["facts"]["stopped"] == "after 2 validations without a better score"
    assert manifest["facts"]["selected"]["selection"] == "best text-to-image mAP"

    model = tmp_path / "out" / "model"
    r1, mean_ap, _ = _scores(model, tmp_path / "own", "val")
    assert manifest["facts"]["selected"]["map"] >= mean_ap - 0.05  # its gallery lacks the silent picture
    assert manifest["facts"]["validation_exposure"]["marks"] == ["UNKNOWN"]  # what the editor has seen, nobody tells
    shown = {(line["kind"], *line["exposure"]) for line in lines if "exposure" in line}
    assert shown == {("validation", "UNKNOWN"), ("transfer", "OVERLAP", "UNKNOWN")}
    assert read_manifest(model)["facts"]["exposure"] == ["UNKNOWN"]
    val, test = manifest["facts"]["transfer"]
    for result, split in ((val, "val"), (test, "test")):
        r1, mean_ap, gallery = _scores(model, tmp_path / "other", split)
        assert (result["dataset"], result["split"], result["step"]) == ("Market-1501", split, each)
        assert (result["r1"], result["map"]) == pytest.approx((r1, mean_ap), abs=1e-5)
        assert result["known_overlap"] == ["CUHK-PEDES holds pictures of Market-1501"]
        assert (result["exposure"]["images"], result["exposure"]["marks"]) == (gallery, ["OVERLAP", "UNKNOWN"])
    assert test["gallery"] == gallery
    assert len([line for line in lines if line.get("kind") == "transfer" and line["split"] == "val"]) == 3
    assert not [line for line in lines if line.get("split") == "test"]  # the test split was never looked at while training

    trained = [line for line in lines if line.get("kind") == "train"]
    for line in trained:
        assert line["images_per_second"] == pytest.approx(8 * line["steps_per_second"])
        assert 0 <= line["data_wait_share"] <= 1
        assert 100 < line["memory_peak_mb"] < 20_000
        assert line["cuda_peak_mb"] is None
        assert line["mfu"] > 0

    missing = others.replace("name:", "test_split: nowhere, name:")
    with refused(DataError, "Market-1501", "split 'nowhere'", "['test', 'train', 'val']"):
        run_train(load_config(TrainJob, None, [*values, f"transfer={missing}", f"output.path={tmp_path}/never"]))
