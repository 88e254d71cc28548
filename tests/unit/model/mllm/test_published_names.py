"""A LLaVA that transformers saved has the weight names that are published, which vLLM looks for, and the same weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from reid_ray.model.mllm.published_names import restore_published_names
from reid_ray.model.tiny.tiny_llava import build_tiny_llava


@pytest.mark.slow
def test_names_of_a_saved_llava_are_the_published_ones_and_load_as_before(tmp_path):
    build_tiny_llava(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    # As in llava-hf/llava-1.5-7b-hf.
    assert {
        "language_model.lm_head.weight",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "multi_modal_projector.linear_1.weight",
        "vision_tower.vision_model.embeddings.class_embedding",
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        "vision_tower.vision_model.post_layernorm.weight",
    } <= names
    before = (tmp_path / "model.safetensors").read_bytes()
    restore_published_names(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    model, found = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    saved = load_file(tmp_path / "model.safetensors")["vision_tower.vision_model.embeddings.class_embedding"]
    assert torch.equal(dict(model.named_parameters())["model.vision_tower.embeddings.class_embedding"].data, saved)


def test_a_checkpoint_in_several_files_keeps_its_index_true(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    files = {"a.safetensors": "model.vision_tower.embeddings.x", "b.safetensors": "language_model.y"}
    for file, name in files.items():
        save_file({name: torch.ones(1)}, tmp_path / file)
    index = {"metadata": {"total_size": 8}, "weight_map": {name: file for file, name in files.items()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    restore_published_names(tmp_path)
    now = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert now["metadata"] == {"total_size": 8}
    assert now["weight_map"] == {"model.vision_tower.vision_model.embeddings.x": "a.safetensors", "language_model.y": "b.safetensors"}
    for name, file in now["weight_map"].items():
        assert list(load_file(tmp_path / file)) == [name]


def test_other_families_keep_their_names(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    save_file({"vision_tower.embeddings.x": torch.ones(1)}, tmp_path / "model.safetensors")
    restore_published_names(tmp_path)
    assert list(load_file(tmp_path / "model.safetensors")) == ["vision_tower.embeddings.x"]
