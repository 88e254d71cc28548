"""Noise-aware masking and every loss term through the train job: sharded, in chunks and where a worker is lost, the same as one worker."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.model.dual.dual_encoder import DualEncoder
from reid_ray.model.pretrained import load_encoder
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import TableWriter, read_table
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train
from reid_ray.train.log.run_log import read_metrics
from reid_ray.train.masking.noise_export import NOISE

pytestmark = pytest.mark.slow
SHAPE = {"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": 16, "vocab_size": 400, "context": 32}
# 16 training captions in batches of 8: the third epoch begins with step 4.
TERMS = "{sdm: {temperature: 0.1}, infonce: {weight: 0.5}, sigmoid: {weight: 0.5}, triplet: {weight: 0.5}, id: {weight: 0.5}, irr: {weight: 0.5, heads: 2, blocks: 1}}"  # noqa: E501


def _job(people, out, *overrides):
    values = [
        f"images={{path: {people}/images, val_split: null}}",
        f"captions={{paths: [{people}/captions], rewrite_share: 0}}",
        f"output.path={out}",
        f"model={{image_height: 64, image_width: 32, scratch: {SHAPE}}}",
        "batches={size: 8, flip: 0, crop_padding: 0, erase: 0}",
        f"objective={TERMS}",
        "masking={kind: nam, probability: 0.3, depth: 0.5, mask_token: trained}",
        "optimizer={lr: 0.001, eps: 0.0001}",
        "schedule={epochs: 9, max_steps: 8, checkpoint_every: 2, log_every: 1}",
        "workers={count: 1, num_cpus: 0.5}",
        "engine={zero_stage: 2, persistence_threshold: 0}",
        *overrides,
    ]
    return load_config(TrainJob, None, values)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    made = SyntheticPeople(SyntheticConfig(identities=8, images_per_identity=2, val_share=0.1, test_share=0.4))
    with TableWriter(folder / "images", IMAGES) as images, TableWriter(folder / "captions", CAPTIONS) as captions:
        images.append(made.image_table())
        captions.append(made.caption_table())
    return folder


def _kill_a_worker_after_the_second_epoch(tmp_path, killed):
    deadline = time.time() + 400
    while time.time() < deadline and not killed:
        for folder in tmp_path.glob(".two.*.run"):
            lines = read_metrics(folder)
            if any(line.get("event") == "checkpoint" and line["step"] >= 4 for line in lines):
                killed.append(next(line for line in lines if line.get("event") == "start")["workers"][1]["pid"])
                os.kill(killed[0], signal.SIGKILL)
                return
        time.sleep(0.005)


@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.soak("training"))])
def test_two_sharded_workers_in_chunks_of_which_some_are_lost_equal_one_worker(local_ray, people, tmp_path, lost):
    run_train(_job(people, tmp_path / "one"))
    killed = []
    if lost:
        threading.Thread(target=_kill_a_worker_after_the_second_epoch, args=(tmp_path, killed), daemon=True).start()
    sharded = ["workers.count=2", "batches.chunk=3", "engine.zero_stage=3", "objective.tile=16"]
    sharded += ["log.peak_tflops=0.001"]
    sharded += ["batches.decoders={replicas: 1, num_cpus: 0.25, batch_size: 3}"]  # Ray Data feeds these, a thread fed the other
    manifest = run_train(_job(people, tmp_path / "two", *sharded))
    assert manifest["facts"]["restarts"] == len(killed) == lost

    logs = [[line for line in read_metrics(tmp_path / name) if line.get("kind") == "train"] for name in ("one", "two")]
    assert all(line["mfu"] > 0 for line in logs[1])  # operations are counted under ZeRO-3 too
    assert set(logs[0][0]) >= {"sdm", "infonce", "sigmoid", "triplet", "id", "irr", "weighted_irr"}
    np.testing.assert_allclose([line["loss"] for line in logs[1]], [line["loss"] for line in logs[0]], rtol=1e-4)
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5, msg=lambda text, at=name: f"{at}: {text}")

    encoder = load_encoder(tmp_path / "two" / "model")
    assert isinstance(encoder, DualEncoder)
    tokenizer, table = encoder.tokenizer, weights[1]["text_model.embeddings.token_embedding.weight"]
    assert len(table) == len(tokenizer) == tokenizer.mask_token_id + 1
    # It begins as the start mark's copy; 8 steps of Adam at 0.001 have moved it away.
    assert 1e-4 < (table[tokenizer.mask_token_id] - table[tokenizer.bos_token_id]).abs().max() < 0.05

    noise = [read_table(tmp_path / name / "noise", NOISE).sort_by("row").to_pylist() for name in ("one", "two")]
    assert len(noise[0]) == len(noise[1]) > 0
    for one, two in zip(*noise, strict=True):
        assert (one["row"], one["words"]) == (two["row"], two["words"])
        np.testing.assert_allclose(two["token_noise"], one["token_noise"], atol=2 / 254 + 1e-6)
    assert "<span" in (tmp_path / "two" / "noise.html").read_text()
