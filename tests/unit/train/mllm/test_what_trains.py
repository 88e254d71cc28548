"""A loss term is refused where nothing that it reaches trains, and a part that trains where no term reaches it: by gradients."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from reid_ray.config.base import load_config
from reid_ray.model.mllm.config import MllmConfig
from reid_ray.model.mllm.inputs import Chat
from reid_ray.model.mllm.model_folder import open_mllm
from reid_ray.model.tiny.tiny_llava import build_tiny_llava
from reid_ray.model.tiny.tiny_qwen3_vl import build_tiny_qwen3_vl
from reid_ray.train.mllm.config import REACHES, TuneJob, TuneObjective
from reid_ray.train.mllm.module import CAPTION, IMAGE, SyncReid, inputs_of
from reid_ray.train.mllm.objective import build_tune_objective

PARTS = ("visual", "projector", "language")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {
        "qwen": "builtin:tiny-mllm",
        "llava": str(build_tiny_llava(folder / "llava")),
        "qwen3": str(build_tiny_qwen3_vl(folder / "qwen3")),
    }


def alone(term, weight=1.0):
    return {name: {"weight": weight if name == term else 0.0} for name in REACHES}


def batch(opened):
    """Two crops of each of two persons, all of them unlike, with their captions."""
    rng = np.random.default_rng(0)
    shades = [rng.integers(low, low + 60, (112, 56, 3), dtype=np.uint8) for low in (0, 60, 120, 190)]
    chat = Chat(opened.processor, context=opened.mllm.context)
    asked, said = ["Continue."] * 4, ["A man in red.", "A woman.", "A man in a red coat.", "Her shoes are white."]
    pictures = chat.picture_turns([Image.fromarray(pixels) for pixels in shades], asked, said)
    return inputs_of(pictures, IMAGE) | inputs_of(chat.caption_turns(said, asked, said), CAPTION)


def reached_by_term(opened):
    """For each term the parameters to which its gradient alone comes, with the part that each is of."""
    everything = {name: {"weight": 1.0} for name in REACHES}
    module = SyncReid(opened.mllm, TuneObjective.model_validate(everything), persons=2, gather=lambda rows: (rows, 0)).train()
    with torch.no_grad():  # an adapter's second matrix starts at zero, and a classifier's weights near it
        for name, weight in module.named_parameters():
            if "lora_B" in name or "classify" in name:
                weight.normal_(std=0.1)
    features, family, found = module(**batch(opened)), opened.mllm.family, {}
    for term in REACHES:
        values = alone(term)
        if term.endswith("triplet"):
            values[term]["margin"] = 4.0  # no triplet is far enough apart to teach nothing
        module.zero_grad()
        objective = build_tune_objective(TuneObjective.model_validate(values))
        objective(features, torch.tensor([0, 0, 1, 1])).total.backward(retain_graph=True)
        found[term] = {}
        for name, weight in opened.mllm.model.named_parameters():
            if weight.grad is not None and weight.grad.abs().max() > 0:
                inside = name.startswith(tuple(f"{part}." for part in family.projector))
                found[term][name] = "projector" if inside else "visual" if name.startswith(f"{family.visual}.") else "language"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("base", ["qwen", "llava", "qwen3"])
def test_each_term_teaches_the_parts_that_it_is_said_to(bases, base):
    opened = open_mllm(MllmConfig(base=bases[base], lora={"rank": 2}))
    found = reached_by_term(opened)
    # Qwen's visual feature is taken behind the projector's norm, which learns with it.
    further = set() if base == "llava" else {"projector"}
    parts_of = {term: set(names.values()) for term, names in found.items()}
    assert parts_of == {term: parts | (further if term.startswith("visual") else set()) for term, parts in REACHES.items()}
    trainable = {name for name, weight in opened.mllm.model.named_parameters() if weight.requires_grad}
    assert set().union(*found.values()) == trainable  # none is saved as trained that nothing moved
    if base == "llava":  # its tokens leave the visual encoder before the last layer, which the visual terms alone teach
        latent = found["latent_id"].keys() | found["lm_image"].keys()
        assert {name for name in trainable - latent if ".layers.2." not in name or "vision_tower" not in name} == set()


@pytest.mark.parametrize("names", [names for count in range(4) for names in combinations(PARTS, count)], ids=" ".join)
def test_a_term_that_nothing_answers_to_and_a_part_that_nothing_teaches_are_refused(names):
    trained = set(names)
    model = {
        "lora": {"visual": "attention" if "visual" in trained else [], "llm": ["q_proj"] if "language" in trained else []},
        "train_projector": "projector" in trained,
    }
    images, captions = {"path": "i", "val_split": None}, {"paths": ["c"]}
    for term, parts in REACHES.items():
        values = {"images": images, "captions": captions, "model": model, "objective": alone(term), "output": {"path": "o"}}
        if trained and trained <= parts:
            TuneJob.model_validate(values)
            continue
        with pytest.raises(ValidationError) as caught:
            TuneJob.model_validate(values)
        said = str(caught.value)
        assert "set " in said
        if trained and not trained & parts:
            assert f"objective.{term}" in said or "model." in said


def test_every_shipped_recipe_and_the_default_train_the_visual_encoder(root):
    files = sorted((root / "jobs" / "configs" / "train").glob("tune*.yaml"))
    assert len(files) >= 3
    for config in [MllmConfig(), *(load_config(TuneJob, file, []).model for file in files)]:
        assert config.trains == set(PARTS)


@pytest.mark.slow
def test_the_attention_layers_are_those_of_the_family(bases):
    for base, layers in (("qwen", {"qkv", "proj"}), ("llava", {"q_proj", "k_proj", "v_proj", "out_proj"}), ("qwen3", {"qkv", "proj"})):
        opened = open_mllm(MllmConfig(base=bases[base], lora={"rank": 1, "llm": []}, train_projector=False))
        adapted = {name.split(".lora_A")[0].rsplit(".", 1)[1] for name, _ in opened.mllm.model.named_parameters() if "lora_A" in name}
        assert adapted == layers
        assert set(opened.config.lora.visual) == layers  # as the manifest will name them
