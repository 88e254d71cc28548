"""What the memory planner predicts is what torch and DeepSpeed allocate, and it names the cheapest setting that fits."""

from __future__ import annotations

import json

import pytest
import torch
from allocated import most_bytes_alive
from qwen_step import TINY, loss_of, qwen
from transformers import AutoConfig, AutoModelForImageTextToText

from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError
from reid_ray.model.mllm.model_folder import open_mllm
from reid_ray.train.dual.config import TrainJob
from reid_ray.train.memory.config import MemoryJob
from reid_ray.train.memory.dry_run import parameter_sizes, trace_step
from reid_ray.train.memory.estimate import ParameterCounts, PeakBytes, TrainingSetting, cheapest_that_fits, predict
from reid_ray.train.memory.job import refuse_too_large, run_memory
from reid_ray.train.memory.meta_steps import train_step, tune_step
from reid_ray.train.mllm.config import TuneJob

OUTPUT = {"path": "unused"}


@pytest.mark.parametrize("lora", [True, False], ids=["adapters", "everything trains"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.slow
def test_a_step_without_memory_holds_what_a_real_step_holds(lora, checkpointing):
    torch.set_num_threads(1)
    model = qwen("meta", lora=lora, checkpointing=checkpointing)
    predicted = trace_step(model, lambda: loss_of(model, "meta"), vocabulary=model.config.text_config.vocab_size)
    real = qwen("cpu", lora=lora, checkpointing=checkpointing)
    measured = most_bytes_alive(lambda: loss_of(real, "cpu").backward())
    assert predicted.total == pytest.approx(measured, rel=0.15)
    assert [sum(sizes) for sizes in parameter_sizes(model)] == [sum(sizes) for sizes in parameter_sizes(real)]


def test_where_everything_trains_in_bf16_the_states_are_deepspeeds_own_estimate():
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    weights, nothing = ParameterCounts(trained=7_000_000_000, frozen=0), PeakBytes(0)
    two = predict(weights, nothing, TrainingSetting(2, devices=8, batch=1, weight_bytes=2, bucket=0))
    assert two.device == estimate_zero2_model_states_mem_needs(weights.trained, 8, 1, cpu_offload=False)[1]
    three = predict(weights, nothing, TrainingSetting(3, devices=8, batch=1, weight_bytes=2, bucket=0, live=0))
    # DeepSpeed counts 18 bytes a weight; gradients in bf16 and their copy in float32 stand side by side, which makes 20.
    estimated = estimate_zero3_model_states_mem_needs(weights.trained, 0, 8, 1, cpu_offload=False)[1]
    assert three.device == pytest.approx(estimated * 20 / 18)


def test_frozen_weights_cost_their_size_and_adapters_their_state():
    lora = predict(
        ParameterCounts(trained=1_000, frozen=1_000_000), PeakBytes(0), TrainingSetting(2, devices=2, batch=1, weight_bytes=2, bucket=0)
    )
    assert (lora.weights, lora.optimizer, lora.gradients, lora.moment) == (2 * 1_001_000, 12 * 500, 6 * 500, "step")
    busy = predict(
        ParameterCounts(1_000, 1_000_000), PeakBytes(50_000, 7_000), TrainingSetting(2, devices=2, batch=1, weight_bytes=2, bucket=100)
    )
    assert (busy.moment, busy.activations, busy.logits, busy.communication) == ("backward", 50_000, 7_000, 200)


def test_the_fastest_setting_that_fits_is_named_and_none_where_none_does():
    weights = ParameterCounts(trained=10**9, frozen=0)
    settings = [
        TrainingSetting(stage, devices=8, batch=1, checkpointing=c, bucket=0, live=10**8) for stage in (0, 2, 3) for c in (False, True)
    ]

    def predicted(setting):
        return predict(weights, PeakBytes(10**9 if setting.checkpointing else 8 * 10**9, gradients=0), setting)

    def best(gigabytes):
        found = cheapest_that_fits(settings, predicted, device_bytes=gigabytes * 10**9)
        return found and (found[0].zero_stage, found[0].checkpointing)

    assert [best(25), best(14), best(8), best(4), best(2)] == [(0, False), (2, False), (2, True), (3, True), None]


@pytest.mark.slow
def test_seven_billion_weights_are_counted_without_memory():
    # The published size of Qwen2.5-VL-7B-Instruct; its shape is in its config.json.
    config = AutoConfig.from_pretrained(TINY)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size = 3584, 18944, 28, 152064
    text.num_attention_heads, text.num_key_value_heads, text.layer_types = 28, 4, ["full_attention"] * 28
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads, vision.out_hidden_size = 32, 1280, 3420, 16, 3584
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    assert sum(parameter_sizes(model)[0]) == 8_292_166_656


@pytest.mark.slow
def test_the_job_plans_a_configuration_whose_data_are_not_there(root, tmp_path):
    config = MemoryJob(
        config=str(root / "jobs" / "configs" / "train" / "train.yaml"),
        overrides=["images.path=unused", "captions.paths=[unused]", "model.scratch.vision_layers=2", "batches.size=8"],
        batches=[2],
        output={"path": str(tmp_path / "out"), "if_exists": "reuse"},
    )
    manifest = run_memory(config)
    assert run_memory(config)["run_id"] == manifest["run_id"], "a finished prediction is kept where reuse is asked"
    assert "fits" in (tmp_path / "out" / "memory.md").read_text()
    assert json.loads((tmp_path / "out" / "memory.json").read_text())["own"] == manifest["facts"]["own"]
    assert manifest["facts"]["best"]["device"] <= manifest["facts"]["own"]["device"]


@pytest.mark.slow
def test_the_tuning_step_is_the_real_module_and_grows_with_its_batch():
    job = TuneJob(
        images={"path": "unused"},
        captions={"paths": ["unused"], "max_tokens": 16},
        batches={"size": 8},
        workers={"count": 2},
        output=OUTPUT,
    )
    plan = MemoryJob(job="tune", config="unused", persons=5, output=OUTPUT)
    (weights, two), (_, four) = (tune_step(job, plan, batch=batch, checkpointing=False, keep_gradients=False) for batch in (2, 4))
    opened = open_mllm(job.model)
    adapters = sum(weight.numel() for weight in opened.mllm.parameters() if weight.requires_grad)
    dims = opened.mllm.hidden_dim + opened.mllm.visual_dim
    assert weights.trained == adapters + dims + 5 * dims  # necks, and classifiers of five persons
    assert four.activations == pytest.approx(2 * two.activations, rel=0.1)
    assert four.logits == 2 * two.logits > 0


WIDE = "engine.reduce_bucket=500_000_000"


@pytest.mark.slow
def test_a_job_that_cannot_fit_is_refused_with_the_numbers_and_the_remedy(root):
    paths = ["images.path=unused", "captions.paths=[unused]"]
    job = load_config(
        TrainJob, root / "jobs" / "configs" / "train" / "train.yaml", [*paths, "batches.size=16", "workers.device_gib=1", WIDE]
    )
    with pytest.raises(ConfigError, match=r"ZeRO-2, batch 8 needs 1\.\d+ GiB of 1 \(communication 1\.86, .*\); ZeRO-0, batch 8 would fit"):
        refuse_too_large("train", job)


TERMS = {
    "sdm": "{weight: 1}",
    "infonce": "{weight: 1}",
    "infonce learned": "{weight: 1, temperature: learned}",
    "sigmoid": "{weight: 1}",
    "triplet": "{weight: 1}",
    "id": "{weight: 1}",
    "irr": "{weight: 1, heads: 2, blocks: 1}",
}


@pytest.mark.slow
@pytest.mark.parametrize("tile", ["null", "16"])
@pytest.mark.parametrize("term", TERMS)
def test_each_loss_can_be_planned_whole_and_in_tiles(term, tile):
    shape = "{vision_width: 16, vision_layers: 1, text_width: 16, text_layers: 1, embed_dim: 16, vocab_size: 300}"
    model = "model={image_height: 32, image_width: 16, scratch: " + shape + "}"
    objective = [f"objective.tile={tile}", "objective.sdm.weight=0", f"objective.{term.split()[0]}={TERMS[term]}"]
    needed = ["images.path=unused", "captions.paths=[unused]", "output.path=unused", "workers.count=2", "masking.kind=equal"]
    job = load_config(TrainJob, None, [*needed, model, *objective])
    plan = MemoryJob(config="unused", persons=5, output=OUTPUT)
    two, four = (train_step(job, plan, batch=batch, checkpointing=False, keep_gradients=False)[1] for batch in (2, 4))
    assert four.activations > two.activations > 0
