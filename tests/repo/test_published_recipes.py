"""The shipped training recipes say what their papers and codes say, and differ between data sets in nothing but the data."""

import re

import pytest
import yaml

from reid_ray.config.base import flattened, load_config
from reid_ray.config.reference import job_model, job_of_config
from reid_ray.config.shipped import find_config
from reid_ray.train.dual.config import TrainJob

SETS = ("cuhk_pedes", "icfg_pedes", "rstpreid")
CLIP = "openai/clip-vit-base-patch16"
# What Tan et al. (CVPR 2024) and Jiang and Ye (CVPR 2023) have in common, the latter's code being the former's base.
BOTH = {
    "model.image_height": 384,
    "model.image_width": 128,
    "model.position_resize": "bilinear",
    "batches.sampler": "shuffle",
    "batches.flip": 0.5,
    "batches.crop_padding": 10,
    "batches.erase": 0.5,
    "batches.fill": "irra",
    "batches.colour": 0.0,
    "captions.rewrite_share": 0.0,
    "objective.sdm.weight": 1.0,
    "objective.sdm.temperature": 0.02,
    "objective.infonce.weight": 0.0,
    "objective.sigmoid.weight": 0.0,
    "objective.triplet.weight": 0.0,
    "masking.probability": 0.15,
    "masking.at_least_one": True,
    "masking.masked_for": "all",
    "optimizer.name": "adam",
    "optimizer.lr": 1e-5,
    "optimizer.weight_decay": 4e-5,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.eps": 1e-3,
    "optimizer.layer_decay": 1.0,
    "optimizer.warmup_from": 0.1,
    "optimizer.rate_by": "epoch",
    "optimizer.lr_decay": "cosine",
    "optimizer.clip_norm": 0.0,
    "schedule.max_steps": None,
    "schedule.patience": None,
}
LUPERSON = BOTH | {
    "model.init": CLIP,
    "images.train_split": None,
    "images.identity": "image",
    "captions.kinds": ["static", "dynamic"],
    "batches.size": 512,
    "objective.id.weight": 0.0,
    "objective.irr.weight": 0.0,
    "masking.kind": "nam",
    "masking.depth": 0.83,
    "optimizer.decay_of": "all",
    "optimizer.bias_factor": None,
    "optimizer.warmup_share": 0.16667,
    "schedule.epochs": 30,
    "workers.count": 8,
}
IRRA = BOTH | {
    "model.init": "runs/luperson_mllm/model",
    "captions.kinds": ["human"],
    "batches.size": 64,
    "objective.id.weight": 1.0,
    "objective.irr.weight": 1.0,
    "objective.irr.blocks": 4,
    "objective.irr.heads": 8,
    "masking.kind": "equal",
    "optimizer.decay_of": "weights",
    "optimizer.heads_factor": 5.0,
    "optimizer.bias_factor": 2.0,
    "optimizer.warmup_share": 0.08333,
    "schedule.epochs": 60,
    "schedule.validate_every": "epoch",
    "workers.count": 1,
}
# Li et al. 2024, as far as it is known second-hand.
LLM_DA = {
    "model.init": CLIP,
    "model.image_height": 224,
    "model.image_width": 224,
    "captions.rewrite_share": 0.2,
    "images.select_by": "map",
    "batches.size": 80,
    "batches.flip": 0.0,
    "batches.crop_padding": 0,
    "batches.erase": 0.0,
    "objective.sdm.weight": 0.0,
    "objective.infonce.weight": 1.0,
    "objective.infonce.temperature": "learned",
    "masking.kind": "none",
    "optimizer.name": "adamw",
    "optimizer.lr": 1e-5,
    "schedule.validate_every": "epoch",
    "schedule.patience": 5,
}
REWRITES = {
    "captions.splits": ["train"],
    "captions.kinds": ["human"],
    "rewriter.model": "lmsys/vicuna-7b-v1.5",
    "rewriter.share": 1.0,
    "faithfulness.model": "sentence-transformers/all-MiniLM-L6-v2",
    "faithfulness.alpha": 0.6,
    "faithfulness.max_tries": 3,
    "faithfulness.min_agreement": None,
}
# Yang and Zhang 2024, and what is usual beside it: the paper gives no numbers.
MLLM_REID = {
    "batches.sampler": "identity",
    "batches.size": 64,
    "batches.samples_per_identity": 4,
    "instruction.kind": "common",
    "model.lora.rank": 16,
    "model.lora.alpha": 64,
    "model.train_projector": True,
    **{
        f"objective.{term}.weight": 1.0 for term in ("lm_image", "lm_caption", "latent_id", "latent_triplet", "visual_id", "visual_triplet")
    },
    "objective.latent_id.smoothing": 0.1,
    "objective.visual_id.smoothing": 0.1,
    "objective.latent_triplet.margin": 0.3,
    "objective.visual_triplet.margin": 0.3,
    "objective.sdm.weight": 0.0,
    "objective.pooling": "mean",
    "images.val_split": None,
    "images.val_share": 0.1,
    "schedule.patience": None,
}
PUBLISHED = {
    "train/train_luperson_mllm.yaml": LUPERSON,
    **{f"train/train_irra_{each}.yaml": IRRA for each in SETS},
    **{f"train/train_llm_da_{each}.yaml": LLM_DA for each in SETS},
    **{f"caption/rewrite_{each}.yaml": REWRITES for each in SETS},
    **{f"train/tune_{each}.yaml": MLLM_REID for each in ("llava15_7b", "qwen25vl_7b", "qwen3vl_8b")},
}
SOURCE = re.compile(r" # .*\b(paper|code|second-hand)\b")
OF_THE_DATA = {"images.path", "images.val_split", "images.val_share", "captions.paths", "output.path"}


def _read(name: str) -> TrainJob:
    return load_config(TrainJob, find_config(f"train_{name}.yaml"))


def _values(name: str) -> dict:
    file = find_config(name)
    return flattened(load_config(job_model(job_of_config(file)), file).model_dump(mode="json"))


def _sourced(name: str) -> set[str]:
    """Keys of a file whose values have the name of their source behind them."""
    text = find_config(name).read_text()
    cited = {number for number, line in enumerate(text.splitlines()) if SOURCE.search(line)}

    def walk(node: yaml.Node, key: str):
        if isinstance(node, yaml.MappingNode):
            for part, value in node.value:
                yield from walk(value, f"{key}.{part.value}".lstrip("."))
        elif node.start_mark.line in cited:
            yield key

    return set(walk(yaml.compose(text), ""))


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_a_recipe_has_the_published_values(name, published):
    values = _values(name)
    assert {key: values[key] for key in published} == published


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_every_value_that_names_its_source_is_compared(name, published):
    sourced = _sourced(name)
    assert sourced <= published.keys()
    assert len(sourced) >= (0 if published is MLLM_REID else 2)


@pytest.mark.parametrize(("name", "epochs"), [("luperson_mllm", 5), *((f"irra_{each}", 5) for each in SETS)])
def test_the_rate_rises_for_five_whole_epochs(name, epochs):
    config = _read(name)
    assert round(config.optimizer.warmup_share * config.schedule.epochs, 2) == epochs


@pytest.mark.parametrize("recipe", ["irra", "llm_da"])
def test_a_recipe_for_another_data_set_differs_in_its_data_alone(recipe):
    first, *others = (_values(f"train_{recipe}_{each}.yaml") for each in SETS)
    for other in others:
        assert {key for key in first.keys() | other.keys() if first.get(key) != other.get(key)} <= OF_THE_DATA


def test_pretraining_is_scored_on_the_test_split_of_the_three_sets_that_it_never_saw():
    config = _read("luperson_mllm")
    assert [(each.name, each.test_split) for each in config.transfer] == [
        (name, "test") for name in ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")
    ]
    assert config.images.watched is None, "nothing of theirs chooses the weights"
