"""A published SigLIP through the end-to-end pipeline: masked training by the train job, an index of its vectors, and a search."""

from __future__ import annotations

import numpy as np
import pytest

from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.pretrained import load_encoder
from reid_ray.model.tiny.tiny_siglip import build_tiny_siglip
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.retrieval.query import text_query
from reid_ray.retrieval.search import SearchEngine
from reid_ray.storage import TableWriter, read_table
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train
from reid_ray.train.log.run_log import read_metrics
from reid_ray.train.masking.noise_export import NOISE

pytestmark = pytest.mark.slow


@pytest.mark.soak("families")
def test_siglip_trains_masked_and_sharded_and_what_was_saved_is_searched(local_ray, tmp_path):
    made = SyntheticPeople(SyntheticConfig(identities=8, images_per_identity=2, val_share=0.1, test_share=0.4))
    captions = made.caption_table()
    with TableWriter(tmp_path / "images", IMAGES) as images, TableWriter(tmp_path / "captions", CAPTIONS) as written:
        images.append(made.image_table())
        written.append(captions)
    build_tiny_siglip(tmp_path / "siglip", captions["text"].to_pylist())
    terms = "{sdm: {temperature: 0.1}, sigmoid: {weight: 1}, irr: {weight: 0.5, heads: 2, blocks: 1}}"
    values = [
        f"images={{path: {tmp_path}/images, val_split: null}}",
        f"captions={{paths: [{tmp_path}/captions], rewrite_share: 0}}",
        f"model={{init: {tmp_path}/siglip, image_height: 96, image_width: 32, patch_stride: 12}}",
        "batches={size: 8, crop_padding: 0, erase: 0}",
        f"objective={terms}",
        "masking={kind: nam, probability: 0.3, depth: 0.5}",
        "optimizer.lr=0.001",
        "schedule={epochs: 3, log_every: 1}",
        "workers={count: 1, num_cpus: 0.5}",
        "engine={zero_stage: 3, persistence_threshold: 0}",
        f"output.path={tmp_path}/run",
    ]
    run_train(load_config(TrainJob, None, values))
    losses = [line for line in read_metrics(tmp_path / "run") if line.get("kind") == "train"]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert losses[0]["irr"] > 0
    levels = read_table(tmp_path / "run" / "noise", NOISE)["token_noise"].to_pylist()
    assert len(levels) == 16
    assert np.concatenate(levels).std() > 0

    encoder, published = load_encoder(tmp_path / "run" / "model"), load_encoder(tmp_path / "siglip")
    assert encoder.family.model_type == "siglip"
    assert encoder.model.vision_model.embeddings.num_patches == 7 * 2
    assert encoder.model.logit_scale.item() != published.model.logit_scale.item()
    assert encoder.model.logit_scale.item() == pytest.approx(2.0, abs=0.1)  # went on from the published scale
    assert not np.allclose(encoder.encode_texts(["a red coat"]), published.encode_texts(["a red coat"]))

    index = {"images": {"source": "parquet", "path": f"{tmp_path}/images"}, "encoder": f"{tmp_path}/run/model"}
    run_index(IndexJob.model_validate({**index, "embed": {"num_cpus": 0.5}, "output": {"path": f"{tmp_path}/index"}}))
    search = SearchEngine.load(str(tmp_path / "index"), None, threads=1, device="cpu", batch_size=8, max_pixels=10_000_000)
    text = captions["text"][0].as_py()
    stored = read_table(tmp_path / "images", IMAGES)
    score_G = encoder.encode_images([decode_image(data) for data in stored["image"].to_pylist()]) @ encoder.encode_texts([text])[0]
    best = stored["image_id"].take(np.argsort(-score_G)[:3]).to_pylist()
    answer = search.answer([text_query(text, k=3)])[0]
    assert [hit.item_id for hit in answer.hits] == best
    np.testing.assert_allclose([hit.score for hit in answer.hits], np.sort(score_G)[::-1][:3], atol=1e-4)
