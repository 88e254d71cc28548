"""A latent feature is pooled over the tokens that see the picture or are the caption, and Qwen3-VL feeds further features to its LLM."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.families import FAMILIES
from reid_ray.model.mllm.inputs import Chat
from reid_ray.model.mllm.mllm_encoder import MllmEncoder
from reid_ray.model.mllm.model_folder import merge_mllm, open_mllm, save_mllm
from reid_ray.model.tiny.tiny_llava import build_tiny_llava
from reid_ray.model.tiny.tiny_qwen3_vl import build_tiny_qwen3_vl

SIZES = [(64, 128), (50, 200), (128, 64), (30, 100), (100, 30), (64, 64), (4, 200)]  # width, height


def opened(base, **lora):
    return open_mllm(MllmConfig(base=str(base), lora={"llm": [], "visual": [], **lora}, train_projector=False))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return opened(build_tiny_llava(tmp_path_factory.mktemp("llava")))


@pytest.fixture(scope="module")
def qwen3_folder(tmp_path_factory):
    return build_tiny_qwen3_vl(tmp_path_factory.mktemp("qwen3"))


def that_change(processor, size, *, patch):
    """Which patches are other pixels when the whole picture is another colour, by brute force."""
    black, white = (
        processor.image_processor(Image.new("RGB", size, (shade,) * 3), return_tensors="pt")["pixel_values"][0] for shade in (0, 255)
    )
    change = (white - black).abs().mean(dim=0)
    rows, columns = (length // patch for length in change.shape)
    # Resampling spreads an edge by less than a pixel on average; a patch counts from a pixel in sixteen on.
    return change.reshape(rows, patch, columns, patch).mean(dim=(1, 3)).flatten() > change.max() / 16


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [56, 336])
def test_the_tokens_that_see_a_letterboxed_picture_are_those_whose_pixels_it_changes(llava, size, side):
    from transformers import LlavaImageProcessor

    processor = llava.processor
    own = processor.image_processor
    processor.image_processor = LlavaImageProcessor(do_pad=True, size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    try:
        sees = FAMILIES["llava"].sees(processor, *size)
        assert sees.tolist() == that_change(processor, size, patch=14).tolist()
    finally:
        processor.image_processor = own


def test_llavas_latent_feature_is_the_mean_over_the_picture_without_its_padding(llava):
    rng = np.random.default_rng(0)
    crops = [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]
    found = MllmEncoder(llava).encode_images(crops)
    for crop, vector in zip(crops, found, strict=True):
        turn = Chat(llava.processor, context=llava.mllm.context).picture_turns([crop], [""])
        with torch.no_grad():
            theirs = llava.mllm.model(
                input_ids=turn.input_ids, attention_mask=turn.attention_mask, **turn.pictures, output_hidden_states=True
            ).hidden_states[-1][0]
        of_picture = theirs[turn.input_ids[0] == llava.mllm.image_token][that_change(llava.processor, crop.size, patch=14)]
        expected = of_picture.mean(dim=0)
        np.testing.assert_allclose(vector, (expected / expected.norm()).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["llava", "qwen3"])
def test_a_captions_latent_feature_is_the_mean_over_its_own_tokens_whatever_is_asked(llava, qwen3_folder, base):
    model = llava if base == "llava" else opened(qwen3_folder)
    tokenizer, caption = model.processor.tokenizer, "A woman in a long green coat, with a bag."
    content = [{"type": "text", "text": f"{caption}\n"}, {"type": "text", "text": "Continue the description."}]
    prompt = model.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    first, last = prompt.index(caption), prompt.index(caption) + len(caption)
    tokens = tokenizer(prompt, return_offsets_mapping=True, return_tensors="pt")
    own = torch.tensor([start < last and end > first for start, end in tokens["offset_mapping"][0].tolist()])
    with torch.no_grad():
        theirs = model.mllm.model(input_ids=tokens["input_ids"], output_hidden_states=True).hidden_states[-1][0]
    expected = theirs[own].mean(dim=0)
    np.testing.assert_allclose(MllmEncoder(model).encode_texts([caption])[0], (expected / expected.norm()).numpy(), atol=1e-5)


@pytest.mark.slow
def test_qwen3_vls_further_visual_features_reach_the_language_model_and_learn(qwen3_folder, tmp_path):
    """Deepstack: features of inner vision layers are added after the first layers of the language model, with mergers of their own."""
    model = open_mllm(MllmConfig(base=str(qwen3_folder)))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 64, 3), dtype=np.uint8))
    turn = Chat(model.processor, context=model.mllm.context).picture_turns([picture], ["Continue."])
    features = model.mllm.encode_pictures(turn.pictures)
    assert len(features.output.deepstack_features) == 2
    hidden = model.mllm.hidden_states(turn.input_ids, turn.attention_mask, features)
    marks = (turn.input_ids == model.mllm.image_token).int()
    theirs = model.mllm.model(
        input_ids=turn.input_ids, attention_mask=turn.attention_mask, mm_token_type_ids=marks, **turn.pictures, output_hidden_states=True
    ).hidden_states[-1]
    torch.testing.assert_close(hidden, theirs, rtol=0, atol=1e-5)
    hidden[turn.shown].mean(dim=0).pow(2).sum().backward()
    weights = dict(model.mllm.model.named_parameters())
    mergers = [name for name in weights if "deepstack_merger_list" in name]
    assert mergers
    assert all(weights[name].grad.abs().max() > 0 for name in mergers)
    with torch.no_grad():
        for name in mergers:
            weights[name].zero_()
        without = model.mllm.hidden_states(turn.input_ids, turn.attention_mask, model.mllm.encode_pictures(turn.pictures))
    assert (without - hidden).abs().max() > 1e-3


@pytest.mark.slow
def test_a_merged_qwen3_vl_is_of_a_class_that_vllm_serves_and_gives_the_tuned_features(qwen3_folder, tmp_path):
    model = open_mllm(MllmConfig(base=str(qwen3_folder), lora={"rank": 2}))
    trained = {name: weight for name, weight in model.mllm.model.named_parameters() if weight.requires_grad}
    assert {"attn.qkv", "attn.proj"} == {".".join(name.split(".lora_")[0].split(".")[-2:]) for name in trained if "visual.blocks" in name}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    crops = [Image.new("RGB", (64, 128), (200, 30, 30))]
    expected = MllmEncoder(model).encode_images(crops)
    state = {name: weight.detach() for name, weight in trained.items()}
    save_mllm(model, tmp_path / "tuned", trained=state, heads={}, facts={"pooling": "mean", "text_latents": False})
    (tmp_path / "plain").mkdir()
    merge_mllm(tmp_path / "tuned", tmp_path / "plain", dtype="float32")
    np.testing.assert_allclose(MllmEncoder(opened(tmp_path / "plain")).encode_images(crops), expected, atol=1e-5)
    written = json.loads((tmp_path / "plain" / "config.json").read_text())
    registry = Path(importlib.util.find_spec("vllm").origin).parent / "model_executor" / "models" / "registry.py"
    assert written["architectures"] == ["Qwen3VLForConditionalGeneration"]
    assert '"Qwen3VLForConditionalGeneration":' in registry.read_text()
    assert written["vision_config"]["deepstack_visual_indexes"] == [0, 1]
