"""A tuned multimodal LLM is indexed, scored and searched as a dual encoder is, by either of its features; what it cannot do it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError
from reid_ray.model.pretrained import load_encoder
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.retrieval.embed.job import run_embed
from reid_ray.retrieval.encoder_identity import encoder_identity, require_texts
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.retrieval.query import picture_query, text_query
from reid_ray.retrieval.search import SearchEngine
from reid_ray.retrieval.transfer.config import TransferJob
from reid_ray.retrieval.transfer.job import run_transfer
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.job import run_tune

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    people = SyntheticPeople(SyntheticConfig(identities=12, images_per_identity=4, cameras=4, val_share=0, test_share=0.5))
    folder = tmp_path_factory.mktemp("tuned")
    pq.write_table(people.image_table(), folder / "images.parquet")
    pq.write_table(people.caption_table(), folder / "captions.parquet")
    return folder / "images.parquet"


@pytest.fixture(scope="module")
def tuned(local_ray, images, tmp_path_factory) -> Path:
    """Two steps of tuning with latent captions."""
    out = tmp_path_factory.mktemp("tune") / "out"
    run_tune(
        TuneJob.model_validate(
            {
                "images": {"path": str(images), "val_split": None, "val_share": 0.2},
                "captions": {"paths": [str(images.with_name("captions.parquet"))]},
                "model": {"lora": {"rank": 4, "alpha": 8, "visual": ["qkv"]}},
                "batches": {"size": 8, "samples_per_identity": 2},
                "objective": {"sdm": {"weight": 1.0}},
                "select": "text",
                "optimizer": {"lr": 1e-3},
                "schedule": {"max_steps": 2},
                "workers": {"count": 1},
                "output": {"path": str(out)},
            }
        )
    )
    return out / "model"


def indexed(images: Path, encoder: str, out: Path) -> Path:
    config = {
        "images": {"source": "parquet", "path": str(images), "split": "test"},
        "encoder": encoder,
        "embed": {"batch_size": 8},
        "output": {"path": str(out)},
    }
    run_index(IndexJob.model_validate(config))
    return out


def search_engine(index: Path, encoder: Path | None = None) -> SearchEngine:
    named = None if encoder is None else str(encoder)
    return SearchEngine.load(str(index), named, threads=1, device="cpu", batch_size=8)


@pytest.fixture(scope="module")
def latent_index(local_ray, images, tuned, tmp_path_factory) -> Path:
    return indexed(images, str(tuned), tmp_path_factory.mktemp("latent") / "index")


def test_an_index_of_latent_features_answers_texts_and_images_as_the_encoder_ranks_them(images, tuned, latent_index):
    rows = [row for row in pq.read_table(images).to_pylist() if row["split"] == "test"]
    encoder = load_encoder(tuned)
    gallery_GD = encoder.encode_images([decode_image(row["image"]) for row in rows])
    text = "a person with a red coat and black trousers"
    by_text, by_image = search_engine(latent_index).answer([text_query(text, k=5), picture_query(decode_image(rows[3]["image"]), k=5)])
    score_G = gallery_GD @ encoder.encode_texts([text])[0]
    assert [hit.item_id for hit in by_text.hits] == [rows[at]["image_id"] for at in np.argsort(-score_G)[:5]]
    np.testing.assert_allclose([hit.score for hit in by_text.hits], np.sort(score_G)[::-1][:5], atol=1e-5)
    assert by_image.hits[0].item_id == rows[3]["image_id"]
    assert by_image.hits[0].score == pytest.approx(1, abs=1e-5)
    assert encoder_identity(str(tuned)) == (encoder.dim, encoder.fingerprint)


def test_an_index_of_visual_features_answers_images_and_refuses_texts(local_ray, images, tuned, tmp_path):
    index = indexed(images, f"{tuned}#visual", tmp_path / "index")
    encoder = load_encoder(f"{tuned}#visual")
    assert encoder_identity(f"{tuned}#visual") == (encoder.dim, encoder.fingerprint) != encoder_identity(f"{tuned}#latent")
    data = pq.read_table(images, filters=[("split", "==", "test")])["image"][0].as_py()
    by_text, by_image = search_engine(index).answer([text_query("a woman in red", k=3), picture_query(decode_image(data), k=3)])
    assert (by_text.hits, by_text.refused.partition(":")[0]) == ((), "no_texts")
    assert len(by_image.hits) == 3
    assert by_image.refused is None


@pytest.mark.parametrize("feature", ["visual", "latent"])
def test_images_are_scored_by_the_market_protocol(local_ray, images, tuned, tmp_path, feature):
    config = {
        "protocol": "image_to_image",
        "encoder": f"{tuned}#{feature}",
        "images": str(images),
        "embed": {"batch_size": 8},
        "output": {"path": str(tmp_path / "out")},
    }
    run_evaluate(EvaluateJob.model_validate(config))
    rows = [row for row in pq.read_table(images).to_pylist() if row["split"] == "test"]
    feature_ND = load_encoder(f"{tuned}#{feature}").encode_images([decode_image(row["image"]) for row in rows])
    precisions = []
    for query, score_G in zip(rows, feature_ND @ feature_ND.T, strict=True):
        ranked = [rows[at] for at in np.argsort(-score_G, kind="stable")]
        kept = [row for row in ranked if (row["person_id"], row["camera_id"]) != (query["person_id"], query["camera_id"])]
        right = [row["person_id"] == query["person_id"] for row in kept]
        precisions.append(np.mean([sum(right[: place + 1]) / (place + 1) for place, good in enumerate(right) if good]))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["map"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert result["queries"] == len(rows)


def by_text(images: Path, encoder: str, out: Path) -> dict:
    config = {
        "encoder": encoder,
        "images": str(images),
        "captions": str(images.with_name("captions.parquet")),
        "embed": {"batch_size": 8},
        "output": {"path": str(out)},
    }
    run_evaluate(EvaluateJob.model_validate(config))
    return json.loads((out / "result.json").read_text())


def test_captions_search_images_by_the_latent_feature_and_the_score_says_on_whom_the_weights_were_chosen(
    local_ray, images, tuned, tmp_path
):
    result = by_text(images, str(tuned), tmp_path / "out")
    rows = [row for row in pq.read_table(images).to_pylist() if row["split"] == "test"]
    captions = [row for row in pq.read_table(images.with_name("captions.parquet")).to_pylist() if row["split"] == "test"]
    encoder = load_encoder(f"{tuned}#latent")
    image_GD = encoder.encode_images([decode_image(row["image"]) for row in rows])
    text_QD = encoder.encode_texts([row["text"] for row in captions])
    precisions = []
    for query, score_G in zip(captions, text_QD @ image_GD.T, strict=True):
        right = [rows[at]["person_id"] == query["person_id"] for at in np.argsort(-score_G, kind="stable")]
        precisions.append(np.mean([sum(right[: place + 1]) / (place + 1) for place, good in enumerate(right) if good]))
    assert result["map"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert result["queries"] == len(captions)
    assert result["encoder"]["texts_trained"] is True
    assert result["selection"]["selected_on"] == "held_out"
    assert result["selection"]["training_seed"] == 0
    assert "SEEN" not in result["exposure"]["marks"]


def test_a_score_of_captions_that_no_loss_brought_to_images_says_so_wherever_it_is_shown(images, tuned, latent_index, tmp_path):
    other = Path(shutil.copytree(tuned, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["facts"]["text_latents"] = False
    (other / "manifest.json").write_text(json.dumps(manifest))
    result = by_text(images, str(other), tmp_path / "out")
    assert result["encoder"]["texts_trained"] is False
    cell = {"train": "a", "test": "b", "run": str(tmp_path / "out")}
    run_transfer(TransferJob.model_validate({"cells": [cell], "output": {"path": str(tmp_path / "transfer")}}))
    for page in (tmp_path / "out" / "report.md", tmp_path / "transfer" / "transfer.md"):
        assert "objective.sdm" in page.read_text()
    by_text_in_service = search_engine(latent_index, other).answer([text_query("a woman in red", k=3)])[0]
    assert by_text_in_service.refused.partition(":")[0] == "no_texts"


def test_a_visual_encoder_is_asked_for_no_texts(tuned, images, tmp_path):
    with refused(DataError, "#visual", "#latent"):
        require_texts(f"{tuned}#visual")
    captions = str(images.with_name("captions.parquet"))
    with refused(DataError, "#visual", "#latent"):
        run_embed(EmbedJob.model_validate({"captions": captions, "encoder": f"{tuned}#visual", "output": {"path": str(tmp_path / "out")}}))
