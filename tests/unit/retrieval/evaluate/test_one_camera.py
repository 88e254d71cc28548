"""Leave one out, for one camera, against brute force; and refusals by the labels alone, before anything is embedded."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, EMBEDDINGS, IMAGES, table_of
from reid_ray.retrieval.compare.config import CompareJob
from reid_ray.retrieval.compare.job import run_compare
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.retrieval.transfer.config import TransferJob
from reid_ray.retrieval.transfer.job import run_transfer

pytest.importorskip("torch")

COUNT = 40
PERSON = [None if n % 10 == 9 else n % 7 for n in range(COUNT)]
TRACK = [None if n % 8 == 7 else f"t{n // 14}" for n in range(COUNT)]  # a person of two tracks has pictures on both


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """(folder, unit vectors): embeddings of one camera's pictures with a column track, and without it."""
    root = tmp_path_factory.mktemp("camera")
    vector_ND = np.random.default_rng(3).standard_normal((COUNT, 12)).astype(np.float32)
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    who = [{"image_id": f"i{n}", "person_id": PERSON[n]} for n in range(COUNT)]
    more = [{"item_id": f"i{n}", "kind": "image", "embedding": vector_ND[n].tolist(), "status": "ok"} for n in range(COUNT)]
    table = table_of(EMBEDDINGS, [{**a, **b} for a, b in zip(who, more, strict=True)])
    pq.write_table(table, root / "plain.parquet")
    pq.write_table(table.append_column("track", pa.array(TRACK)), root / "tracked.parquet")
    pq.write_table(table_of(IMAGES, [{**each, "image": b""} for each in who]), root / "images.parquet")
    return root, vector_ND


def evaluate(root, name, **changes):
    values = {"protocol": "leave_one_out", "split": None, "top_k": 3, "output": {"path": f"{root}/{name}", "if_exists": "replace"}}
    run_evaluate(EvaluateJob.model_validate({**values, **changes}))
    return json.loads((root / name / "result.json").read_text())


def brute(vector_ND, tracks):
    """(R@1, mAP, candidates of each) picture by picture: all others but those of the query's person and track."""
    firsts, precisions, candidates = [], [], []
    for q in range(COUNT):
        if PERSON[q] is None:
            continue
        apart = [g for g in range(COUNT) if g == q or (tracks[g] is not None and (tracks[g], PERSON[g]) == (tracks[q], PERSON[q]))]
        score_G = vector_ND.astype(np.float64) @ vector_ND[q].astype(np.float64)
        order = sorted((g for g in range(COUNT) if g not in apart), key=lambda g: -score_G[g])
        right = [rank for rank, g in enumerate(order, 1) if PERSON[g] == PERSON[q]]
        if right:
            firsts.append(right[0] == 1)
            precisions.append(np.mean([(place + 1) / rank for place, rank in enumerate(right)]))
            candidates.append(len(order))
    return np.mean(firsts), np.mean(precisions), candidates


@pytest.mark.slow
@pytest.mark.parametrize("table", ["plain", "tracked"])
def test_each_picture_queries_all_others_but_those_of_its_own_track(camera, table):
    root, vector_ND = camera
    result = evaluate(root, table, gallery_embeddings=f"{root}/{table}.parquet")
    r1, mean_ap, candidates = brute(vector_ND, TRACK if table == "tracked" else [None] * COUNT)
    assert (result["protocol"], result["queries"], result["gallery"]) == ("leave_one_out", len(candidates), COUNT)
    assert (result["r1"], result["map"]) == (pytest.approx(r1), pytest.approx(mean_ap))
    queries = pq.read_table(root / table / "queries.parquet")
    assert sorted(queries.filter(pc.greater(queries["relevant"], 0))["candidates"].to_pylist()) == sorted(candidates)
    assert result["tracks"] == ({"pictures": 35, "tracks": 3} if table == "tracked" else {"pictures": 0, "tracks": 0})
    assert result["left_out"]["queries"] == {"unknown_person": PERSON.count(None)}
    assert result["failed"] == {"queries": {}, "gallery": {}}
    assert "track" in (root / table / "report.md").read_text()


@pytest.mark.slow
def test_tracks_are_told_apart_by_their_video_and_may_stand_with_the_images(camera):
    root, _ = camera
    images = pq.read_table(root / "images.parquet").append_column("track", pa.array(["0"] * COUNT))
    pq.write_table(images.append_column("video", pa.array([f"v{n}" for n in range(COUNT)])), root / "videos.parquet")
    plain = evaluate(root, "alone", gallery_embeddings=f"{root}/plain.parquet")
    apart = evaluate(root, "videos", gallery_embeddings=f"{root}/plain.parquet", images=f"{root}/videos.parquet", sheet_queries=0)
    assert apart["map"] == plain["map"]
    assert apart["tracks"]["tracks"] == COUNT


@pytest.mark.slow
def test_some_pictures_query_for_many_and_are_the_same_in_every_order(camera):
    root, _ = camera
    table = pq.read_table(root / "plain.parquet")
    pq.write_table(table.take(pa.array(np.random.default_rng(0).permutation(COUNT))), root / "shuffled.parquet")
    asked = []
    for name in ("plain", "shuffled"):
        result = evaluate(root, f"few-{name}", gallery_embeddings=f"{root}/{name}.parquet", query_limit=9)
        assert (result["query_limit"], result["gallery"]) == (9, COUNT)
        asked.append(sorted(pq.read_table(root / f"few-{name}" / "queries.parquet")["query_id"].to_pylist()))
    assert asked[0] == asked[1]
    assert len(asked[0]) == 9


@pytest.mark.slow
def test_scores_of_two_protocols_are_not_put_side_by_side(camera):
    root, _ = camera
    evaluate(root, "one", gallery_embeddings=f"{root}/plain.parquet")
    table = pq.read_table(root / "plain.parquet")
    cameras = pa.array([n // 7 % 2 for n in range(COUNT)], pa.int32())
    pq.write_table(table.set_column(table.column_names.index("camera_id"), "camera_id", cameras), root / "two.parquet")
    evaluate(root, "cross", protocol="image_to_image", **dict.fromkeys(("query_embeddings", "gallery_embeddings"), f"{root}/two.parquet"))
    with refused(DataError, "protocol", "leave_one_out", "image_to_image"):
        run_compare(CompareJob.model_validate({"baseline": f"{root}/one", "candidate": f"{root}/cross", "output": {"path": f"{root}/c"}}))
    cells = [{"train": "a", "test": test, "run": f"{root}/{run}"} for test, run in (("b", "one"), ("c", "cross"))]
    with refused(DataError, "leave_one_out", "image_to_image"):
        run_transfer(TransferJob.model_validate({"cells": cells, "output": {"path": f"{root}/t"}}))


class Embeds(Exception):
    """The run got as far as to embed."""


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """Evaluates images, and captions, of given labels by an encoder, up to where it embeds."""

    def embeds(config, *, here):
        raise Embeds

    monkeypatch.setattr("reid_ray.retrieval.evaluate.job.features_of", embeds)
    for name in ("require_encoder", "require_texts", "shipped_content"):
        monkeypatch.setattr(f"reid_ray.retrieval.evaluate.job.{name}", lambda encoder: None)
    monkeypatch.setattr("reid_ray.retrieval.evaluate.job.pinned_encoder", lambda encoder: encoder)

    def run(rows, *, captions=None, **changes):
        pq.write_table(table_of(IMAGES, [{"image_id": f"i{n}", **row} for n, row in enumerate(rows)]), tmp_path / "images.parquet")
        told = {}
        if captions is not None:
            plain = {"kind": "human", "text": "a man", "status": "ok"}
            texts = [{"caption_id": f"c{n}", "image_id": f"i{n}", **plain, **row} for n, row in enumerate(captions)]
            pq.write_table(table_of(CAPTIONS, texts), tmp_path / "captions.parquet")
            told["captions"] = f"{tmp_path}/captions.parquet"
        values = {"encoder": "e", "images": f"{tmp_path}/images.parquet", "output": {"path": f"{tmp_path}/out"}}
        run_evaluate(EvaluateJob.model_validate({**values, **told, **changes}))

    return run


def people(count=6, **labels):
    """Rows of the test split, two pictures a person; a label is a value, or a function of the row's number."""
    said = {"person_id": lambda n: n // 2, "camera_id": 3, "split": "test", **labels}
    return [{name: value(n) if callable(value) else value for name, value in said.items()} for n in range(count)]


CASES = {
    "unsplit": (people(split=None), "image_to_image", ["'test'", "null", "none (6)"]),
    "another split": (people(split="all"), "image_to_image", ["'test'", "all (6)"]),
    "nobody known": (people(person_id=None), "image_to_image", ["person_id", "6", "reid-ray label"]),
    "one camera": (people(), "image_to_image", ["camera 3", "leave_one_out"]),
    "no camera": (people(camera_id=None), "image_to_image", ["camera_id", "6", "leave_one_out"]),
    "each on its own camera": (people(camera_id=lambda n: n // 2), "image_to_image", ["two cameras", "leave_one_out"]),
    "made by an editor": (people(synthetic=True), "leave_one_out", ["include_synthetic"]),
    "alone": (people(person_id=lambda n: n), "leave_one_out", ["second picture"]),
    "nobody known of one camera": (people(person_id=None), "leave_one_out", ["person_id"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_scored_is_refused_before_a_picture_is_embedded(labelled, case):
    rows, protocol, names = CASES[case]
    with refused(DataError, "images.parquet", *names):
        labelled(rows, protocol=protocol)


@pytest.mark.parametrize(
    ("captions", "names"),
    [
        ([{"person_id": 9, "split": "test"}], ["none of the 1 queries", "images.parquet"]),
        ([{"person_id": None, "split": "test"}], ["person_id"]),
        ([{"person_id": 1, "split": "train"}], ["query_split", "train (1)"]),
        ([{"person_id": 1, "split": "test", "kind": "static"}], ["caption_kinds"]),
        ([{"person_id": 1, "split": "test", "status": "failed", "text": None}], ["usable caption"]),
    ],
)
def test_captions_that_ask_for_nobody_are_refused_before_a_picture_is_embedded(labelled, captions, names):
    with refused(DataError, "captions.parquet", *names):
        labelled(people(), captions=captions)


@pytest.mark.parametrize(
    ("rows", "protocol"),
    [
        (people(), "leave_one_out"),
        ([*people(), {"person_id": 0, "camera_id": 4, "split": "test"}], "image_to_image"),
        (people(2, camera_id=lambda n: n), "image_to_image"),
    ],
)
def test_labels_by_which_one_query_has_a_match_are_let_through(labelled, rows, protocol):
    with pytest.raises(Embeds):
        labelled(rows, protocol=protocol)
