"""Every part of a LoRA adapter is served, or refused in a sentence before an engine starts, by the names of its tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from refusals import refused
from safetensors.torch import load_file, save_file

from reid_ray.caption.config import CaptionerConfig
from reid_ray.caption.engines.adapters import adapter_arguments, check_adapter, plain_name, read_adapter
from reid_ray.caption.engines.vllm_engine import model_facts
from reid_ray.errors import ConfigError, DataError
from reid_ray.model.model_files import resolve_model

MODEL = Path(resolve_model("builtin:tiny-mllm"))
LLM, VISUAL = r".*language_model.*\.(q_proj|v_proj)", r".*visual\.blocks.*\.qkv"


def saved(folder, **options):
    """A folder that PEFT saved, of an adapter of the tiny model."""
    from peft import LoraConfig, get_peft_model  # here, for these take seconds
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL)
    get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": LLM, **options})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("adapter") / "plain")


def rewritten(folder, target, *, config=None, weights=None):
    """A copy of an adapter with another configuration or other weights."""
    shutil.copytree(folder, target)
    file = target / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | (config or {})))
    if weights is not None:
        save_file(weights(load_file(target / "adapter_model.safetensors")), target / "adapter_model.safetensors")
    return target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "rank", "visual"),
    [
        ({}, 8, False),
        ({"use_rslora": True}, 8, False),
        ({"rank_pattern": {r"layers\.1\.self_attn\.q_proj": 20}, "alpha_pattern": {"v_proj": 3}}, 32, False),
        ({"target_modules": VISUAL}, 8, True),
        ({"target_modules": f"{VISUAL}|{LLM}", "r": 1}, 1, True),
        ({"target_modules": r".*visual\.merger\.mlp\.0", "r": 9}, 16, True),
        ({"init_lora_weights": "gaussian"}, 8, False),
    ],
)
def test_an_adapter_that_can_be_served_tells_the_engine_what_it_needs(tmp_path, options, rank, visual):
    folder = str(saved(tmp_path / "adapter", **options))
    assert check_adapter(folder, MODEL).visual or not visual
    wanted = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank} | ({"enable_tower_connector_lora": True} if visual else {})
    assert adapter_arguments(folder) == wanted
    assert adapter_arguments(None) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "lora_only"}, "bias: lora_only"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
        ({"target_modules": ["lm_head"]}, "lm_head.lora_A"),
        ({"target_modules": ["embed_tokens"]}, "lora_embedding_A"),
        ({"target_modules": r".*visual\.patch_embed\.proj"}, "patch_embed.proj.lora_A"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
    ],
)
@pytest.mark.slow
def test_what_vllm_would_leave_out_is_refused(tmp_path, options, words):
    folder = saved(tmp_path / "adapter", **options)
    with refused(ConfigError, words) as error:
        check_adapter(folder, MODEL, field="captioners.a.adapter")
    assert str(error.value).startswith("captioners.a.adapter: ")
    assert "merge it into its base" in str(error.value)
    assert str(error.value).endswith("captioners.a.model")


def without_b(state):
    return {name: value for name, value in state.items() if "layers.0.self_attn.q_proj.lora_B" not in name}


def elsewhere(state):
    return {name.replace("layers.1.", "layers.99."): value for name, value in state.items()}


def too_wide(state):
    return {name: torch.zeros(value.shape[0], 7) if "lora_A" in name else value for name, value in state.items()}


@pytest.mark.parametrize(
    ("config", "weights", "names"),
    [
        ({"r": 0}, None, ["rank 0"]),
        ({"r": 600}, None, ["rank 600"]),
        ({"rank_pattern": {"x": 1000}}, None, ["rank 1000"]),
        ({"r": 8}, None, ["rank 4", "8"]),
        ({"peft_type": "IA3"}, None, ["IA3"]),
        ({"use_qalora": True}, None, ["QALoRA"]),
        ({"layer_replication": [[0, 2]]}, None, ["layer_replication"]),
        ({}, without_b, ["layers.0.self_attn.q_proj"]),
        ({}, lambda s: s | {"base_model.model.lm_head.weight": torch.ones(3, 3)}, ["lm_head.weight"]),
        ({}, lambda s: s | {"base_model.model.a.lora_magnitude_vector": torch.ones(3)}, ["lora_magnitude_vector"]),
        ({}, elsewhere, ["layers.99."]),
        ({}, too_wide, ["128 x 7", "128 x 128"]),
        ({}, lambda _: {}, []),
    ],
)
def test_an_adapter_that_is_not_the_models_is_refused(plain, tmp_path, config, weights, names):
    folder = rewritten(plain, tmp_path / "adapter", config=config, weights=weights)
    with refused(ConfigError, *names):
        check_adapter(folder, MODEL)


def test_an_adapter_of_nan_and_a_cut_one_are_refused(plain, tmp_path):
    nan = rewritten(plain, tmp_path / "nan", weights=lambda s: {name: value * torch.nan for name, value in s.items()})
    cut = shutil.copytree(plain, tmp_path / "cut")
    (cut / "adapter_model.safetensors").write_bytes((plain / "adapter_model.safetensors").read_bytes()[:3000])
    for folder in (nan, cut):
        with refused(DataError, folder.name):
            check_adapter(folder, MODEL)


def test_a_pickled_adapter_is_read_as_the_other(plain, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "adapter")
    torch.save(load_file(copy / "adapter_model.safetensors"), copy / "adapter_model.bin")
    (copy / "adapter_model.safetensors").unlink()
    assert check_adapter(copy, MODEL) == check_adapter(plain, MODEL)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with refused(ConfigError, str(tmp_path), "LoRA"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    with refused(ConfigError, "adapter_model.safetensors"):
        read_adapter(tmp_path)


def test_a_visual_adapter_of_an_architecture_that_was_not_tried_is_refused(tmp_path):
    folder = saved(tmp_path / "adapter", target_modules=VISUAL)
    other = tmp_path / "model"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "idefics3"}))
    with refused(ConfigError, "visual.blocks.0.attn.qkv", "idefics3", "merge it"):
        check_adapter(folder, other)


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_half_of_a_tune_is_refused_wherever_its_manifest_lies(plain, tmp_path, where):
    adapter = shutil.copytree(plain, tmp_path / "tuned" / "adapter")
    manifest = {"trained": {"whole": 5}, "base": {"model": str(MODEL), "digest": "any"}}
    ((adapter.parent if where == "beside" else adapter) / "manifest.json").write_text(json.dumps(manifest))
    with refused(ConfigError, "captioners.main.adapter", "merge"):
        model_facts(CaptionerConfig(adapter=str(adapter)), "captioners.main.model")
    manifest["trained"]["whole"] = 0
    ((adapter.parent if where == "beside" else adapter) / "manifest.json").write_text(json.dumps(manifest))
    with refused(ConfigError, "captioners.main.model", str(MODEL)):
        model_facts(CaptionerConfig(adapter=str(adapter)), "captioners.main.model")


def test_an_adapter_is_a_part_of_the_revision(plain, tmp_path):
    doubled = rewritten(plain, tmp_path / "b", weights=lambda s: {name: 2 * value + 1 for name, value in s.items()})
    none, one, other = (
        model_facts(CaptionerConfig(adapter=adapter), "captioners.main.model")["revision"] for adapter in (None, str(plain), str(doubled))
    )
    assert len({none, one, other}) == 3
    assert one.startswith(f"{none}+")
    assert other.startswith(f"{none}+")


def test_names_of_all_ages_are_one():
    names = ["base_model.model.model.language_model.layers.0.q", "model.layers.0.q", "language_model.model.layers.0.q", "layers.0.q"]
    assert {plain_name(name) for name in names} == {"layers.0.q"}
    assert plain_name("model.visual.blocks.0.attn.qkv") == plain_name("visual.blocks.0.attn.qkv") == "visual.blocks.0.attn.qkv"
