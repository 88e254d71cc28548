"""Jobs on a GPU by their configuration alone, beside themselves on the CPU: the same numbers, but for what each rounds otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tune_reference import job as tune_job
from tune_reference import write_people

from reid_ray.config.base import load_config
from reid_ray.records import EMBEDDINGS
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.retrieval.embed.job import run_embed
from reid_ray.storage import read_table
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.dual.job import run_train
from reid_ray.train.log.run_log import read_metrics
from reid_ray.train.mllm.job import run_tune

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
SHAPE = {"vision_width": 64, "vision_layers": 2, "text_width": 64, "text_layers": 2, "embed_dim": 32, "vocab_size": 400, "context": 32}
ON = {"cpu": ["workers.num_gpus=0"], "cuda": ["workers.num_gpus=1"]}
ONE_WORKER = ["workers.count=1", "workers.num_cpus=1", "ray.address=local"]


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(autouse=True)
def deepspeed_on_cuda(monkeypatch):
    """What the session's conftest.py chooses for machines without a GPU is not handed to the workers of these jobs."""
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)


def losses_of(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder) if line.get("kind") == "train"]


def train_job(people: Path, out: Path, *overrides: str) -> TrainJob:
    values = [
        f"images.path={people}/images",
        f"captions.paths=[{people}/captions]",
        f"output.path={out}",
        "images.val_split=null",
        "model.image_height=64",
        "model.image_width=32",
        f"model.scratch={SHAPE}",
        "batches.size=12",
        "batches.flip=0",
        "batches.crop_padding=0",
        "batches.erase=0",
        "objective.infonce={weight: 0.5, temperature: learned}",
        "optimizer.lr=0.001",
        "optimizer.eps=0.0001",
        "schedule.epochs=20",
        "schedule.max_steps=8",
        "schedule.log_every=1",
        *ONE_WORKER,
        *overrides,
    ]
    return load_config(TrainJob, None, values)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_a_gpu_takes_the_steps_that_it_takes_on_a_cpu(people, tmp_path, precision):
    run_train(train_job(people, tmp_path / "cpu", *ON["cpu"]))
    run_train(train_job(people, tmp_path / "cuda", *ON["cuda"], f"engine.precision={precision}"))
    here, there = losses_of(tmp_path / "cpu"), losses_of(tmp_path / "cuda")
    assert len(there) == 8
    np.testing.assert_allclose(there, here, rtol={"fp32": 2e-4, "bf16": 0.03}[precision])
    peaks = [line["cuda_peak_mb"] for line in read_metrics(tmp_path / "cuda") if line.get("cuda_peak_mb") is not None]
    assert peaks
    assert min(peaks) > 0


def test_tuning_a_multimodal_model_on_a_gpu_takes_the_steps_that_it_takes_on_a_cpu(people, tmp_path):
    for device, words in ON.items():
        run_tune(tune_job(people, tmp_path / device, *words, *ONE_WORKER, "model.lora.visual=[qkv]", "engine.zero_stage=2"))
    np.testing.assert_allclose(losses_of(tmp_path / "cuda"), losses_of(tmp_path / "cpu"), rtol=5e-4)


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99999), ("float16", 0.999), ("bfloat16", 0.99)])
def test_vectors_of_a_gpu_are_those_of_a_cpu(people, tmp_path, precision, least):
    job = ["encoder=builtin:tiny-encoder", "images.source=parquet", f"images.path={people}/images"]
    run_embed(load_config(EmbedJob, None, [*job, f"output.path={tmp_path}/cpu"]))
    there = ["embed.num_gpus=0.5", f"embed.precision={precision}", "ray.address=local", f"output.path={tmp_path}/cuda"]
    run_embed(load_config(EmbedJob, None, [*job, *there]))
    vectors = {}
    for device in ("cpu", "cuda"):
        rows = read_table(tmp_path / device / "embeddings", EMBEDDINGS).sort_by("item_id")
        assert set(rows["status"].to_pylist()) == {"ok"}
        vectors[device] = np.array(rows["embedding"].to_pylist())
    cosine_N = (vectors["cpu"] * vectors["cuda"]).sum(axis=1)
    assert len(cosine_N) > 20
    assert cosine_N.min() >= least
    assert json.loads((tmp_path / "cuda" / "manifest.json").read_text())["config"]["embed"]["num_gpus"] == 0.5
