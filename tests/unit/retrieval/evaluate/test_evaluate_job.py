"""The evaluate job on small EMBEDDINGS tables, end to end without Ray: numbers, hits, report, refusals, comparison, transfer."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError
from refusals import refused

from reid_ray.config import load_config
from reid_ray.data.dataset_overlap import known_overlap
from reid_ray.data.images import encode_jpeg
from reid_ray.data.labels.doubted_captions import DOUBTED_CAPTIONS
from reid_ray.errors import ConfigError, DataError
from reid_ray.records import EMBEDDINGS, HITS, IMAGES, table_of
from reid_ray.retrieval.compare.config import CompareJob
from reid_ray.retrieval.compare.job import compare_queries, paired_bootstrap, run_compare
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.retrieval.evaluate.sheet import RIGHT, WRONG
from reid_ray.retrieval.transfer.config import TransferJob
from reid_ray.retrieval.transfer.job import run_transfer
from reid_ray.storage import read_table

pytest.importorskip("torch")


def rows(kind, vectors, persons, *, cameras=None, split="test", prefix=""):
    return [
        {
            "item_id": f"{prefix}{kind}-{n}",
            "kind": kind,
            "embedding": vector.tolist(),
            "status": "ok",
            "image_id": f"{prefix}image-{n}",
            "text": f"caption {n}" if kind == "text" else None,
            "dataset": "toy",
            "split": split,
            "person_id": person,
            "camera_id": None if cameras is None else int(cameras[n]),
        }
        for n, (vector, person) in enumerate(zip(vectors, persons, strict=True))
    ]


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write(path, table_rows, parts=3):
    """In several files, as several writers would leave them."""
    path.mkdir()
    for part in range(parts):
        pq.write_table(table_of(EMBEDDINGS, table_rows[part::parts]), path / f"part-{part}.parquet")
    return str(path)


@pytest.fixture
def toy(tmp_path):
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((6, 16))
    person_G, person_Q = np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 2)
    gallery = unit(centre[person_G] + 0.9 * rng.standard_normal((24, 16)))
    queries = unit(centre[person_Q] + 0.9 * rng.standard_normal((12, 16)))
    colours = rng.integers(0, 255, (24, 3))
    pictures = [encode_jpeg(Image.new("RGB", (32, 64), tuple(int(c) for c in colour))) for colour in colours]
    images = [{"image_id": f"image-{n}", "image": picture, "split": "test"} for n, picture in enumerate(pictures)]
    pq.write_table(table_of(IMAGES, images), tmp_path / "images.parquet")
    failed = {"item_id": "text-broken", "kind": "text", "status": "failed", "reason": "empty_text: no text", "split": "test"}
    stranger = rows("text", queries[:1], [None], prefix="stranger-")
    elsewhere = rows("text", queries[:3], [0, 1, 2], split="val", prefix="val-")
    hopeless = rows("text", queries[:1], [77], prefix="hopeless-")
    query_rows = [*rows("text", queries, person_Q.tolist()), failed, *stranger, *elsewhere, *hopeless]
    config = {
        "query_embeddings": write(tmp_path / "queries", query_rows),
        "gallery_embeddings": write(tmp_path / "gallery", rows("image", gallery, person_G.tolist(), cameras=np.arange(24) % 3)),
        "images": str(tmp_path / "images.parquet"),
        "top_k": 5,
        "sheet_queries": 3,
    }
    return {"config": config, "queries": queries, "gallery": gallery, "person_Q": person_Q, "person_G": person_G, "root": tmp_path}


def evaluate(toy, name, **changes):
    output = toy["root"] / name
    run_evaluate(EvaluateJob.model_validate({**toy["config"], "output": {"path": str(output)}, **changes}))
    return output


@pytest.mark.slow
def test_queries_whose_maker_found_them_hardly_true_are_said_in_terminal_result_and_report(toy, capsys):
    doubted = {"captions": "captions", "found_by": "caption", "run_id": "1" * 32, "doubts": ["somebody: 99% of coats are black"]}
    manifest = {"job": "embed", "run_id": "0" * 32, "facts": {DOUBTED_CAPTIONS: [doubted]}}
    (toy["root"] / "queries" / "manifest.json").write_text(json.dumps(manifest))
    output = evaluate(toy, "run")
    said = "are hardly true, as the caption job found: somebody: 99% of coats are black"
    assert f"evaluate: the captions of {toy['config']['query_embeddings']} {said}" in capsys.readouterr().out
    assert json.loads((output / "result.json").read_text())[DOUBTED_CAPTIONS][0]["doubts"] == doubted["doubts"]
    assert said in (output / "report.md").read_text()


@pytest.mark.slow
def test_text_to_image_from_parquet_to_report(toy):
    output = evaluate(toy, "run")
    result = json.loads((output / "result.json").read_text())
    score_QG = toy["queries"].astype(np.float64) @ toy["gallery"].T.astype(np.float64)
    match_QG = (toy["person_Q"][:, None] == toy["person_G"])[np.arange(12)[:, None], np.argsort(-score_QG, axis=1)]
    rank = np.arange(1, 25)
    ap = [(match.cumsum() / rank)[match].mean() for match in match_QG]
    assert (result["queries"], result["gallery"], result["skipped"]) == (12, 24, 1)
    assert result["map"] == pytest.approx(np.mean(ap))
    assert result["r1"] == pytest.approx(match_QG[:, 0].mean())
    assert result["r5"] == pytest.approx(match_QG[:, :5].any(1).mean())
    assert result["chance_r1"] == pytest.approx(4 / 24)
    assert result["selected_elsewhere"] is None
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["counts"] == {"read": 15, "written": 12, "failed": {"empty_text": 1}, "left_out": {"no_match": 1, "unknown_person": 1}}
    assert (result["failed"]["queries"], result["left_out"]["queries"]) == ({"empty_text": 1}, {"unknown_person": 1})
    hits = read_table(output / "hits", HITS)
    assert hits.num_rows == 13 * 5
    own = hits.filter(pa.compute.equal(hits["query_id"], "text-3")).to_pylist()
    assert [row["image_id"] for row in own] == [f"image-{g}" for g in np.argsort(-score_QG[3])[:5]]
    assert [row["correct"] for row in own] == match_QG[3, :5].tolist()
    report = (output / "report.md").read_text()
    for said in (
        "No camera filter",
        "queries test, gallery test",
        "empty_text 1",
        "equal scores rank in gallery order",
        "Versions: Python",
    ):
        assert said in report
    assert Image.open(output / "cmc.png").width > 300
    colours = {pixel for _, pixel in Image.open(output / "sheet.png").convert("RGB").getcolors(1 << 24)}
    assert RIGHT in colours
    assert WRONG in colours


@pytest.mark.slow
def test_msd_stands_in_the_result_where_it_is_asked_for_and_knows_no_order_of_the_gallery(toy):
    plain, asked = (json.loads((evaluate(toy, f"msd-{on}", msd=on) / "result.json").read_text()) for on in (False, True))
    assert {name: value for name, value in asked.items() if name not in ("msd", "environment")} == {
        name: value for name, value in plain.items() if name != "environment"
    }
    share_QG = (toy["queries"].astype(np.float64) @ toy["gallery"].T.astype(np.float64) + 1) / 2
    by_hand = []
    for share_G, person in zip(share_QG, toy["person_Q"], strict=True):
        order_G = np.argsort(-share_G)
        ranked_G, right_G = share_G[order_G], (toy["person_G"] == person)[order_G]
        precision = [(ranked_G[:rank] * right_G[:rank]).sum() / ranked_G[:rank].sum() for rank in np.flatnonzero(right_G) + 1]
        by_hand.append(np.mean(precision) * (1 - np.exp(-ranked_G[right_G].mean() / ranked_G[~right_G].mean())))
    assert asked["msd"] == pytest.approx(np.mean(by_hand), abs=1e-6)
    assert (
        f"mSD (UFineBench, in sorted order throughout): {100 * asked['msd']:.2f} %" in (toy["root"] / "msd-True" / "report.md").read_text()
    )
    backwards = rows("image", toy["gallery"], toy["person_G"].tolist(), cameras=np.arange(24) % 3)[::-1]
    other = json.loads(
        (evaluate(toy, "turned", msd=True, gallery_embeddings=write(toy["root"] / "turned-gallery", backwards)) / "result.json").read_text()
    )
    assert other["msd"] == pytest.approx(asked["msd"], abs=1e-9)
    with pytest.raises(ValidationError) as error:
        EvaluateJob.model_validate({**toy["config"], "output": {"path": "x"}, "msd": True, "protocol": "image_to_image"})
    assert "msd is defined for text_to_image" in str(error.value)


@pytest.mark.slow
def test_the_sheet_shows_images_that_a_table_keeps_by_path_and_opens_no_other_file(toy):
    whole = evaluate(toy, "whole", sheet_queries=1)
    images = pq.read_table(toy["root"] / "images.parquet").to_pylist()
    hits = read_table(whole / "hits", HITS).to_pylist()
    shown = {row["image_id"] for row in hits if row["query_id"] == hits[0]["query_id"]}
    assert len(shown) == 5
    for row in images:
        file = toy["root"] / f"{row['image_id']}.jpg"
        if row["image_id"] in shown:
            file.write_bytes(row["image"])
        row |= {"image": None, "path": f"{row['image_id']}.jpg"}
    pq.write_table(table_of(IMAGES, images), toy["root"] / "by_path.parquet")
    by_path = evaluate(toy, "by-path", images=str(toy["root"] / "by_path.parquet"), sheet_queries=1)
    assert (by_path / "sheet.png").read_bytes() == (whole / "sheet.png").read_bytes()


@pytest.mark.slow
def test_image_to_image_removes_and_skips(toy, tmp_path):
    gallery = toy["config"]["gallery_embeddings"]
    output = evaluate(toy, "images", protocol="image_to_image", query_embeddings=gallery)
    result = json.loads((output / "result.json").read_text())
    # 4 crops a person on cameras n % 3: the crop of camera 0 that comes first loses itself and its camera's other crop.
    camera, person = np.arange(24) % 3, toy["person_G"]
    left = [((person == person[q]) & (camera != camera[q])).sum() for q in range(24)]
    removed = [((person == person[q]) & (camera == camera[q])).sum() for q in range(24)]
    assert result["chance_r1"] == pytest.approx(np.mean([n / (24 - r) for n, r in zip(left, removed, strict=True)]))
    table = pq.read_table(output / "queries.parquet")
    by_id = dict(zip(table["query_id"].to_pylist(), table["relevant"].to_pylist(), strict=True))
    assert [by_id[f"image-{n}"] for n in range(24)] == left
    reranked = evaluate(toy, "reranked", protocol="image_to_image", query_embeddings=gallery, rerank={"k1": 4, "k2": 2})
    assert "k-reciprocal" in (reranked / "report.md").read_text()


@pytest.mark.slow
def test_rows_that_cannot_be_scored_are_refused_by_name(toy):
    root = toy["root"]
    gallery = rows("image", toy["gallery"], toy["person_G"].tolist())
    broken = {
        "zero": ({**gallery[5], "embedding": [0.0] * 16}, r"\(image-5\) is the zero vector"),
        "nan": ({**gallery[5], "embedding": [float("nan")] * 16}, r"\(image-5\) holds NaN"),
        "width": ({**gallery[5], "embedding": [1.0] * 3}, "image-5 has 3 dimensions, others 16"),
        "null": ({**gallery[5], "embedding": None}, "image-5 is null"),
        "kind": ({**gallery[5], "kind": "text"}, "image-5 is of kind text"),
        "repeat": ({**gallery[5], "item_id": "image-6"}, "image-6 appears 2 times"),
    }
    for name, (row, said) in broken.items():
        path = write(root / name, [*gallery[:5], row, *gallery[6:]], parts=1)
        with pytest.raises(DataError, match=said):
            evaluate(toy, f"out-{name}", gallery_embeddings=path)
        assert not (root / f"out-{name}").exists()
    cameras = write(root / "no-camera", gallery, parts=1)
    with refused(DataError, "24", "image-0", "camera_id", "leave_one_out"):
        evaluate(toy, "out-camera", protocol="image_to_image", query_embeddings=cameras, gallery_embeddings=cameras)
    with refused(ConfigError, "device", "cuda:77"):
        evaluate(toy, "out-device", device="cuda:77")
    with refused(DataError, "split 'nowhere'"):
        evaluate(toy, "out-split", split="nowhere")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gallery_embeddings": None, "images": None}, "no gallery"),
        ({"captions": "c"}, "exactly one"),
        ({"query_embeddings": None, "captions": "c"}, "encoder is required"),
        ({"protocol": "image_to_image", "captions": "c"}, "captions is given"),
        ({"protocol": "leave_one_out"}, "query_embeddings is given"),
        ({"query_limit": 5}, "query_limit"),
        ({"rerank": {}}, "rerank"),
        ({"topk": 3}, "topk: unknown key"),
    ],
)
def test_contradictory_configurations_are_refused(changes, said, tmp_path):
    values = {"query_embeddings": "q", "gallery_embeddings": "g", "images": "i", "output": {"path": "o"}, **changes}
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=said):
        load_config(EvaluateJob, tmp_path / "config.yaml")


@pytest.mark.slow
def test_comparing_a_run_with_itself_gives_zero_and_other_queries_are_refused(toy):
    run = evaluate(toy, "run")
    config = {"baseline": str(run), "candidate": str(run), "resamples": 200, "output": {"path": str(toy["root"] / "same")}}
    facts = run_compare(CompareJob.model_validate(config))["facts"]
    for row in facts.values():
        assert (row["difference"], row["low"], row["high"], row["share_not_better"]) == (0, 0, 0, 1)
    fewer = write(toy["root"] / "fewer", rows("text", toy["queries"][:11], toy["person_Q"][:11].tolist()), parts=1)
    other = evaluate(toy, "other", query_embeddings=fewer)
    with refused(DataError, "queries", "2"):
        run_compare(CompareJob.model_validate({**config, "candidate": str(other), "output": {"path": str(toy["root"] / "x")}}))


@pytest.mark.parametrize("column", ["person_id", "relevant", "candidates"])
def test_runs_that_scored_the_same_queries_against_other_people_are_not_compared(column):
    table = pa.table(
        {"query_id": ["a", "b"], "person_id": [1, 2], "relevant": [3, 3], "candidates": [9, 9], "first_rank": [1, 2], "ap": [1.0, 0.5]}
    )
    other = table.set_column(table.schema.get_field_index(column), column, pa.array([table[column][0].as_py(), 4]))
    config = CompareJob.model_validate({"baseline": "x", "candidate": "y", "output": {"path": "z"}})
    with refused(DataError, column, "query b"):
        compare_queries(table, other, names=("x", "y"), config=config)


@pytest.mark.slow
def test_a_better_run_is_better_beyond_doubt(toy):
    run = evaluate(toy, "run")
    perfect = unit(np.eye(6, 16)[toy["person_Q"]]), unit(np.eye(6, 16)[toy["person_G"]])
    hopeless = rows("text", perfect[0][:1], [77], prefix="hopeless-")
    queries = write(toy["root"] / "pq", [*rows("text", perfect[0], toy["person_Q"].tolist()), *hopeless])
    gallery = write(toy["root"] / "pg", rows("image", perfect[1], toy["person_G"].tolist()))
    better = evaluate(toy, "better", query_embeddings=queries, gallery_embeddings=gallery)
    config = {"baseline": str(run), "candidate": str(better), "output": {"path": str(toy["root"] / "compared")}}
    facts = run_compare(CompareJob.model_validate(config))["facts"]
    assert facts["map"]["candidate"] == 1
    assert facts["map"]["low"] > 0
    assert "yes" in (toy["root"] / "compared" / "comparison.md").read_text()


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        person_N = np.repeat(np.arange(40), 5)
        difference_N = 0.1 + 0.5 * rng.standard_normal(40)[person_N] + 0.3 * rng.standard_normal(200)
        found = paired_bootstrap(difference_N, group_N=person_N, resamples=400, confidence=0.9, seed=trial)
        covered += found.low <= 0.1 <= found.high
        by_query = paired_bootstrap(difference_N, resamples=400, confidence=0.9, seed=trial)
        assert by_query.high - by_query.low < found.high - found.low  # queries of one person are not independent
    assert 165 <= covered <= 195  # 180 expected; the percentile interval of 40 groups is a little narrow


@pytest.mark.slow
def test_transfer_table_names_shared_pictures(toy):
    run = str(evaluate(toy, "run"))
    cells = [{"train": train, "test": test, "run": run} for train, test in (("icfg_pedes", "RSTPReid"), ("CUHK-PEDES", "ICFG-PEDES"))]
    run_transfer(TransferJob.model_validate({"cells": cells, "output": {"path": str(toy["root"] / "table")}}))
    text = (toy["root"] / "table" / "transfer.md").read_text()
    assert "1. icfg_pedes and RSTPReid both hold pictures of MSMT17." in text
    assert known_overlap("Market-1501", "CUHK-PEDES") == "CUHK-PEDES holds pictures of Market-1501"
    assert known_overlap("CUHK-PEDES", "RSTPReid") is None
    assert known_overlap("Interactive-PEDES", "ICFG-PEDES") == "Interactive-PEDES holds pictures of ICFG-PEDES"
    assert known_overlap("UFine6926", "UFine3C") == "UFine3C holds pictures of UFine6926"
    with pytest.raises(ValueError, match="more than once"):
        TransferJob.model_validate({"cells": [cells[0], cells[0]], "output": {"path": "o"}})
