"""The tune job under Ray equals plain torch although a worker dies, refuses what cannot work, and makes the next captioner."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from kills import lines_of, saved, wait_for
from PIL import Image
from refusals import refused
from tune_reference import PEOPLE, assert_same, job, plain_torch_run, weights_in, write_people

from reid_ray.config.base import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.images import decode_image
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import ReidRayError
from reid_ray.model.merge.config import MergeJob
from reid_ray.model.merge.job import run_merge
from reid_ray.model.mllm.mllm_encoder import MllmEncoder, load_mllm_encoder
from reid_ray.model.mllm.model_folder import open_mllm
from reid_ray.train.log.run_log import read_metrics
from reid_ray.train.mllm.config import TuneJob
from reid_ray.train.mllm.job import run_tune

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


def configured(people: Path, folder: Path) -> TuneJob:
    """ZeRO-3, every term and option on."""
    return job(
        people,
        folder / "out",
        "engine.zero_stage=3",
        "images.val_split=val",
        "objective.pooling=attention",
        "objective.sdm.weight=1",
        "model.gradient_checkpointing=true",
        "model.lora.visual=[qkv]",
        "schedule.max_steps=8",
        "schedule.checkpoint_every=2",
    )


@pytest.fixture(scope="module")
def qwen_run(local_ray, people, tmp_path_factory) -> tuple[TuneJob, dict]:
    """Under Ray."""
    config = configured(people, tmp_path_factory.mktemp("qwen"))
    return config, run_tune(config)


def assert_it_equals_plain_torch(config, manifest, tmp_path):
    losses = [line["loss"] for line in read_metrics(Path(config.output.path)) if line.get("kind") == "train"]
    chosen = manifest["facts"]["selected"]
    expected = plain_torch_run(config, tmp_path)
    assert chosen["selected_on"] == "val"
    names = {name for line in read_metrics(Path(config.output.path)) for name in line}
    assert {"lm_image", "weighted_lm_caption", "latent_id", "visual_triplet", "weighted_sdm", "visual_map", "text_r1"} <= names
    assert chosen["step"] == config.schedule.max_steps  # the only validation is the one at the end
    assert_same((losses, weights_in(Path(config.output.path) / "model")), expected)


def test_a_ray_job_under_zero3_equals_plain_torch(qwen_run, tmp_path):
    assert_it_equals_plain_torch(*qwen_run, tmp_path)


@pytest.mark.soak("training")
def test_it_equals_plain_torch_though_a_worker_is_killed(local_ray, people, tmp_path):
    config = configured(people, tmp_path)
    killed: list[int] = []

    def kill_when_a_checkpoint_is_there() -> None:
        if wait_for(lambda: saved(lines_of(tmp_path))) and (lines := lines_of(tmp_path))[-1]["step"] < 7:
            killed.append(next(line for line in lines if line.get("event") == "start")["workers"][1]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_when_a_checkpoint_is_there, daemon=True)
    killer.start()
    manifest = run_tune(config)
    killer.join(timeout=1)
    assert killed
    assert manifest["facts"]["restarts"] == 1
    assert_it_equals_plain_torch(config, manifest, tmp_path / "plain")


def test_the_score_that_chose_the_weights_is_that_of_the_saved_encoder(qwen_run, people):
    """The folder, loaded anew in one process, ranks the validation images as the two workers did."""
    config, manifest = qwen_run
    made = SyntheticPeople(PEOPLE)
    rows = [row for row in made.image_table().to_pylist() if row["split"] == "val"]
    pictures = [decode_image(row["image"]) for row in rows]
    for feature in ("latent", "visual"):
        image_ND = load_mllm_encoder(Path(config.output.path) / "model", feature=feature).encode_images(pictures)
        precisions = []
        for q, row in enumerate(rows):
            others = [
                (-float(image_ND[q] @ image_ND[g]), g)
                for g, other in enumerate(rows)
                if g != q and not (other["person_id"] == row["person_id"] and other["camera_id"] == row["camera_id"])
            ]
            hits = [rows[g]["person_id"] == row["person_id"] for _, g in sorted(others)]
            if any(hits):
                precisions.append(np.mean([sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit]))
        line = [line for line in read_metrics(Path(config.output.path)) if line.get("kind") == "validation"][-1]
        assert line[f"{feature}_map"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert manifest["facts"]["selected"]["latent_map"] == line["latent_map"]


def test_the_tuned_model_becomes_the_next_captioner(qwen_run, engines, tmp_path):
    """Tune, merge, caption: vLLM says of the merged checkpoint, token by token, what transformers says greedily."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    from reid_ray.caption.config import SamplingConfig, VllmConfig
    from reid_ray.caption.tiny.job import generate_captions

    config, _ = qwen_run
    folder = tmp_path / "plain"
    run_merge(
        load_config(MergeJob, None, [f"model={config.output.path}/model", f"output.path={folder}", "dtype=float32"]),
    )
    questions = ["Describe the appearance of the person.", *config.instruction.specific[:3]]
    pictures = [Image.fromarray(pixels) for pixels in SyntheticPeople(SyntheticConfig(identities=4, images_per_identity=1)).pictures()]
    processor = AutoProcessor.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    for picture, question in zip(pictures, questions, strict=True):
        asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[text], images=[picture], return_tensors="pt")
        with torch.inference_mode():
            said = model.generate(**inputs, do_sample=False, max_new_tokens=48)
        expected.append(processor.tokenizer.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    engines.open(SamplingConfig(max_tokens=48), engine=VllmConfig(), folder=str(folder))
    assert generate_captions(engines, pictures, questions) == expected
    untuned = MllmEncoder(open_mllm(config.model.model_copy(update={"adapter": None}))).encode_images(pictures)
    assert np.abs(load_mllm_encoder(Path(config.output.path) / "model").encode_images(pictures) - untuned).max() > 1e-3


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["model.lora.llm=[q_proj, qq_proj]"], ["model.lora.llm", "'qq_proj'"]),
        (["captions.max_tokens=4000"], ["captions.max_tokens 4000", "4096"]),
        (["captions.max_tokens=4"], ["0 captions of split 'train'", "too_long"]),
        (["captions.continuation=[rewrite]"], ["0 captions of split 'train'", "no_continuation"]),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_any_worker_starts(local_ray, people, tmp_path, overrides, names):
    with refused(ReidRayError, *names):
        run_tune(job(people, tmp_path / "out", *overrides))
    assert not (tmp_path / "out").exists()
