"""Weights that are scored on the very table that they were trained on: every place that shows the score says so."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.demo.showcase import print_report
from reid_ray.errors import DataError
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.retrieval.compare.config import CompareJob
from reid_ray.retrieval.compare.job import run_compare
from reid_ray.retrieval.embed_stream import ENCODER
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.exposure import exposure_of
from reid_ray.retrieval.evaluate.job import read_result, run_evaluate
from reid_ray.retrieval.evaluate.weights_history import selected_elsewhere
from reid_ray.retrieval.transfer.config import TransferJob
from reid_ray.retrieval.transfer.job import run_transfer
from reid_ray.storage import Counts, write_json
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.feed.pairs import prepare_pairs
from reid_ray.train.feed.seen import publish_seen

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Eight synthetic people, vectors of all images and captions, and the folder of weights that were trained on split train."""
    root = tmp_path_factory.mktemp("world")
    made = SyntheticPeople(SyntheticConfig(identities=8, images_per_identity=2, height=48, width=24, val_share=0.25, test_share=0.25))
    images, captions = made.image_table(), made.caption_table()
    pq.write_table(images, root / "images.parquet")
    pq.write_table(captions, root / "captions.parquet")
    centre = np.random.default_rng(0).standard_normal((8, 4))
    for name, kind, table in (("gallery", "image", images), ("queries", "text", captions)):
        vectors = [
            {
                "item_id": row["image_id"] if kind == "image" else row["caption_id"],
                "kind": kind,
                "embedding": centre[row["person_id"]].tolist(),
                "status": "ok",
                "image_id": row["image_id"],
                "text": row.get("text"),
                **{column: row[column] for column in ("dataset", "split", "person_id", "camera_id")},
            }
            for row in table.to_pylist()
        ]
        made_by_nobody = table_of(EMBEDDINGS, vectors)
        pq.write_table(made_by_nobody, root / f"{name}.parquet")
        pq.write_table(made_by_nobody.append_column(ENCODER, [["these weights"] * len(vectors)]), root / f"signed_{name}.parquet")
    paths = [f"images.path={root}/images.parquet", f"captions.paths=[{root}/captions.parquet]", f"output.path={root}/out"]
    for name in ("data", "model", "old/model"):
        (root / name).mkdir(parents=True)
    prepare_pairs(load_config(TrainJob, None, [*paths, "batches.size=2", "workers.count=1"]), root / "data", Counts())
    own = {"images": {"path": f"{root}/images.parquet", "train_split": "train", "val_split": "val"}, "batches": {"seed": 0}}
    write_json(root / "old" / "manifest.json", {"job": "train", "config": own, "inputs": {}})
    leaky = {"validation_exposure": {"marks": ["SEEN"]}}
    write_json(root / "manifest.json", {"job": "train", "config": own, "inputs": {}, "facts": leaky})
    chosen = {"selected_on": "val", "selection": "best R@1", "step": 3}
    write_json(root / "model" / "manifest.json", {"kind": "dual-encoder", "dim": 4, "fingerprint": "these weights", "facts": chosen})
    publish_seen(root / "data", root / "model", {})
    return root


def scored(root, name: str, **changes):
    values = {
        "encoder": str(root / "model"),
        "query_embeddings": f"{root}/queries.parquet",
        "gallery_embeddings": f"{root}/gallery.parquet",
        "images": f"{root}/images.parquet",
        "split": "train",
        "sheet_queries": 0,
        "output": {"path": str(root / name), "if_exists": "replace"},
    }
    run_evaluate(EvaluateJob.model_validate({**values, **changes}))
    return root / name


@pytest.mark.slow
def test_a_score_on_what_was_trained_on_says_so_wherever_it_is_shown(world, capsys):
    run = scored(world, "run")
    result = read_result(run)
    assert result["selected_elsewhere"] is False
    assert result["exposure"]["train"]["images"] == result["exposure"]["images"] == result["gallery"]
    assert result["exposure"]["marks"] == ["SEEN", "TEXTS", "UNKNOWN"]
    told = {"evaluate": capsys.readouterr().out, "report.md": (run / "report.md").read_text()}
    compared = {
        "baseline": str(run),
        "candidate": str(run),
        "resamples": 100,
        "output": {"path": f"{world}/compared", "if_exists": "replace"},
    }
    run_compare(CompareJob.model_validate(compared))
    cells = [{"train": "synthetic", "test": "synthetic", "run": str(run)}]
    run_transfer(TransferJob.model_validate({"cells": cells, "output": {"path": f"{world}/table", "if_exists": "replace"}}))
    told |= {
        "comparison.md": (world / "compared" / "comparison.md").read_text(),
        "transfer.md": (world / "table" / "transfer.md").read_text(),
    }
    capsys.readouterr()
    hits = {"hits": [], "query": "", "latency_ms": 0.0}
    print_report(
        {"evaluation": {**result, "exposure": exposure_of(result)}, "service": hits, "stages": [], "total_seconds": 0, "peak_rss_bytes": 0}
    )
    told["demo"] = capsys.readouterr().out
    assert [place for place, text in told.items() if "WARNING" not in text or "not selected on it" in text] == []
    for name in ("comparison.md", "transfer.md"):
        assert any("SEEN, TEXTS" in line or "SEEN TEXTS" in line for line in told[name].splitlines() if line.startswith("|"))
    stored = json.loads((world / "compared" / "comparison.json").read_text())["exposure"]["baseline"]
    assert stored == json.loads((world / "table" / "transfer.json").read_text())["cells"][0]["exposure"] == result["exposure"]


@pytest.mark.slow
def test_a_score_on_what_chose_the_weights_and_one_on_neither(world):
    assert read_result(scored(world, "val", split="val"))["exposure"]["val"]["images"] == 4
    signed = {f"{side}_embeddings": f"{world}/signed_{name}.parquet" for side, name in (("query", "queries"), ("gallery", "gallery"))}
    test = read_result(scored(world, "test", split="test", **signed))
    assert ("SEEN" in test["exposure"]["marks"], test["selected_elsewhere"]) == (False, True)
    assert "on split val (SEEN" in (world / "test" / "report.md").read_text()  # the split that chose was no clean one itself


@pytest.mark.slow
def test_weights_that_recorded_nothing_are_betrayed_by_their_runs_manifest(world):
    for split, said in (("train", "learnt from split train"), ("val", "chosen on split val")):
        result = read_result(scored(world, "old-run", encoder=str(world / "old" / "model"), split=split))
        assert said in result["exposure"]["same_table"]
        assert (result["exposure"]["marks"], result["selected_elsewhere"]) == (["SEEN", "UNKNOWN"], False)
    elsewhere = read_result(scored(world, "old-run", encoder=str(world / "old" / "model"), split="test"))
    assert (elsewhere["exposure"]["marks"], elsewhere["selected_elsewhere"]) == (["UNKNOWN"], None)


@pytest.mark.slow
def test_pictures_of_queries_that_the_gallery_has_under_another_person_or_camera_are_counted(world):
    images = pq.read_table(world / "images.parquet").to_pylist()
    copy = {**images[0], "image_id": "copy", "person_id": 7_777, "split": "train", "camera_id": 99}
    pq.write_table(table_of(pq.read_schema(world / "images.parquet"), [*images, copy]), world / "copied.parquet")
    vectors = pq.read_table(world / "gallery.parquet").to_pylist()
    own = {**vectors[0], "item_id": "copy", "image_id": "copy", "person_id": 7_777, "camera_id": 99, "split": "train"}
    pq.write_table(table_of(EMBEDDINGS, [*vectors, own]), world / "copied-vectors.parquet")
    both = dict.fromkeys(("query_embeddings", "gallery_embeddings"), f"{world}/copied-vectors.parquet")
    plain = dict.fromkeys(("query_embeddings", "gallery_embeddings"), f"{world}/gallery.parquet")
    found = read_result(scored(world, "copied", protocol="image_to_image", split=None, images=f"{world}/copied.parquet", **both))[
        "exposure"
    ]
    assert found["copies"]["images"] == 2  # each is a copy of the other
    assert "COPIES" in found["marks"]
    assert read_result(scored(world, "alone", protocol="image_to_image", split=None, **plain))["exposure"]["copies"]["images"] == 0


@pytest.mark.slow
def test_rows_of_a_transfer_table_say_what_they_are_not(world):
    run, other = scored(world, "of-test", split="test"), scored(world, "of-val", split="val")
    cells = [{"train": name, "test": "synthetic", "run": str(path)} for name, path in (("CUHK-PEDES", run), ("synthetic", other))]
    run_transfer(TransferJob.model_validate({"cells": cells, "output": {"path": f"{world}/mixed", "if_exists": "replace"}}))
    first, second = [line for line in (world / "mixed" / "transfer.md").read_text().splitlines() if line.startswith(("| CUHK", "| syn"))]
    assert "[1] [2]" in first  # called by another name than its weights' record, and not against the gallery of the row below
    assert "same set [2] SEEN" in second


@pytest.mark.slow
def test_runs_of_other_galleries_splits_and_protocols_are_not_compared_and_what_else_differs_is_said(world):
    by_image = {"protocol": "image_to_image", "query_embeddings": f"{world}/gallery.parquet", "split": None}
    run = scored(world, "plain", **by_image)
    reranked = scored(world, "reranked", rerank={"k1": 3, "k2": 1}, **by_image)
    config = {"baseline": str(run), "resamples": 100, "output": {"path": f"{world}/differs", "if_exists": "replace"}}
    run_compare(CompareJob.model_validate({**config, "candidate": str(reranked)}))
    assert "rerank: baseline none, candidate" in (world / "differs" / "comparison.md").read_text()
    result = json.loads((reranked / "result.json").read_text())
    for name, other in (
        ("gallery_digest", "0" * 16),
        ("datasets", ["another"]),
        ("split", {"queries": "a", "gallery": "b"}),
        ("protocol", "x"),
    ):
        write_json(reranked / "result.json", {**result, name: other})
        with refused(DataError, name.replace("_", " "), "compare runs of one test"):
            run_compare(CompareJob.model_validate({**config, "candidate": str(reranked)}))


@pytest.mark.slow
def test_vectors_of_what_was_trained_on_beside_the_pictures_of_others_do_not_pass_for_clean(world):
    """What is ranked are the vectors: pictures of other images say nothing of them, and who they are they say themselves."""
    images = pq.read_table(world / "images.parquet")
    rows = images.to_pylist()
    others = [{**row, "split": "train"} for row in rows if row["split"] == "test"]
    some = [row for row in rows if row["split"] == "train"][:3]
    for name, table, seen in (("others", others, None), ("some", [*others, *some], 3)):
        pq.write_table(table_of(images.schema, table), world / f"{name}.parquet")
        result = read_result(scored(world, name, images=f"{world}/{name}.parquet"))
        found = result["exposure"]
        assert found["train"]["images"] == seen
        assert found["identities"] == len({row["person_id"] for row in rows if row["split"] == "train"})
        assert "UNKNOWN" in found["marks"]
        assert any("pictures" in said for said in found["open"])
        assert result["selected_elsewhere"] is not True
    assert result["selected_elsewhere"] is False


@pytest.mark.slow
def test_the_name_of_the_split_that_chose_weights_without_a_record_does_not_make_them_clean(world):
    """They may have been trained on what is called test here."""
    folder = world / "unrecorded" / "model"
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {"facts": {"selected_on": "val", "selection": "best R@1", "step": 3}})
    run = scored(world, "unrecorded-run", encoder=str(folder), split="train")
    result = read_result(run)
    assert (result["exposure"]["marks"], result["selected_elsewhere"]) == (["UNKNOWN"], None)
    report = (run / "report.md").read_text()
    assert "not selected on it" not in report
    assert "on split val (UNKNOWN" in report  # nor is the split that chose known to be a clean one


@pytest.mark.parametrize(("marks", "said"), [([], True), (["COPIES"], True), (["SEEN"], False), (["UNKNOWN"], None), (["OVERLAP"], None)])
def test_only_what_is_wholly_known_is_said_not_to_be_selected_on(marks, said):
    assert selected_elsewhere({"marks": marks}) is said


@pytest.mark.slow
def test_vectors_that_do_not_say_who_made_them_are_not_vouched_for_by_the_encoder_that_is_named(world):
    unsigned = scored(world, "unsigned", split="test")
    assert "UNKNOWN" in read_result(unsigned)["exposure"]["marks"]
    assert read_result(unsigned)["selected_elsewhere"] is None
    assert "without encoder_fingerprint" in (unsigned / "report.md").read_text()
