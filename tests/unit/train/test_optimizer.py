"""The learning rate of each weight at each step."""

import math

import pytest
import torch
from torch import nn

from reid_ray.train.config import OptimizerConfig
from reid_ray.train.optimizer import build_optimizer, layer_factors, learning_rate


def tower(layers: int) -> nn.Module:
    module = nn.Module()
    module.embeddings, module.pre_layrnorm = nn.Embedding(3, 2), nn.LayerNorm(2)
    module.encoder = nn.Module()
    module.encoder.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(layers))
    module.post_layernorm = nn.LayerNorm(2)
    return module


def test_each_layer_learns_slower_than_the_one_above_it_in_each_tower():
    module = nn.Module()
    module.vision_model, module.text_model, module.visual_projection = tower(3), tower(2), nn.Linear(2, 2)
    module.heads = nn.Linear(2, 2)
    optimizer = build_optimizer(module, OptimizerConfig(layer_decay=0.5, heads_factor=5))
    factor = {id(weight): group["factor"] for group in optimizer.param_groups for weight in group["params"]}
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    expected = {
        "vision_model.embeddings.weight": 0.5**4,
        "vision_model.pre_layrnorm.bias": 0.5**4,
        "vision_model.encoder.layers.0.weight": 0.5**3,
        "vision_model.encoder.layers.2.bias": 0.5,
        "vision_model.post_layernorm.weight": 1.0,
        "text_model.embeddings.weight": 0.5**3,
        "text_model.encoder.layers.1.weight": 0.5,
        "visual_projection.weight": 1.0,
        "heads.weight": 5.0,
    }
    weights = dict(module.named_parameters())
    assert {name: factor[id(weights[name])] for name in expected} == expected
    assert len(factor) == len(weights)
    assert all((decay[id(weight)] > 0) == (weight.ndim > 1) for weight in weights.values())


def groups_of(module: nn.Module, config: OptimizerConfig) -> dict[str, tuple[float, float]]:
    """(Factor of the rate, weight decay) of each parameter by name."""
    found = {
        id(weight): (group["factor"], group["weight_decay"])
        for group in build_optimizer(module, config).param_groups
        for weight in group["params"]
    }
    return {name: found[id(weight)] for name, weight in module.named_parameters()}


def irra_like() -> nn.Module:
    module = nn.Module()
    module.text_model, module.heads = tower(1), nn.Module()
    module.heads.classify, module.heads.interaction = nn.Linear(2, 3), nn.Module()
    interaction = module.heads.interaction
    interaction.text_norm, interaction.block_norm, interaction.head = nn.LayerNorm(2), nn.LayerNorm(2), nn.Linear(2, 3)
    return module


def test_irras_groups_are_those_of_its_code():
    """Biases at twice the rate and without decay, norms with decay, classifiers at five times with their biases (Jiang and Ye's code)."""
    config = OptimizerConfig(heads_factor=5, bias_factor=2, decay_of="weights", weight_decay=4e-5)
    expected = {
        "text_model.embeddings.weight": (1.0, 4e-5),
        "text_model.pre_layrnorm.weight": (1.0, 4e-5),
        "text_model.pre_layrnorm.bias": (2.0, 0.0),
        "text_model.encoder.layers.0.bias": (2.0, 0.0),
        "heads.interaction.text_norm.weight": (1.0, 4e-5),
        "heads.interaction.text_norm.bias": (2.0, 0.0),
        "heads.interaction.block_norm.weight": (5.0, 4e-5),
        "heads.interaction.block_norm.bias": (2.0, 0.0),
        "heads.interaction.head.bias": (5.0, 0.0),
        "heads.classify.bias": (5.0, 0.0),
    }
    found = groups_of(irra_like(), config)
    assert {name: found[name] for name in expected} == expected


def test_luperson_mllms_code_knows_one_group():
    """Without groups for biases and new modules, every parameter has the same rate and decay (Tan et al.'s code)."""
    module = irra_like()
    del module.heads
    assert set(groups_of(module, OptimizerConfig(decay_of="all", weight_decay=4e-5)).values()) == {(1.0, 4e-5)}


def test_a_rate_by_epoch_is_that_of_the_published_schedulers():
    """LRSchedulerWithWarmup of IRRA and LUPerson-MLLM, worked out by hand: 5 of 30 epochs rise from a tenth, then half a cosine."""
    config = OptimizerConfig(lr=1.0, warmup_share=0.16667, warmup_from=0.1, rate_by="epoch")
    rates = [learning_rate(step, steps=30 * 7, steps_per_epoch=7, config=config) for step in range(30 * 7)]
    assert all(len(set(rates[epoch * 7 : epoch * 7 + 7])) == 1 for epoch in range(30))
    torch.testing.assert_close(rates[::7][:6], [0.1, 0.28, 0.46, 0.64, 0.82, 1.0])
    torch.testing.assert_close(rates[::7][5:], [(1 + math.cos(math.pi * epoch / 25)) / 2 for epoch in range(25)])


def test_the_rise_begins_where_it_is_told():
    config = OptimizerConfig(lr=2.0, warmup_share=0.4, warmup_from=0.1)
    assert [round(learning_rate(step, steps=10, steps_per_epoch=1, config=config), 6) for step in range(4)] == [0.65, 1.1, 1.55, 2.0]


def test_without_decay_or_layers_every_weight_has_the_same_rate():
    assert layer_factors(["clip.text_model.encoder.layers.0.mlp.weight", "embed.weight"], decay=1.0) == {
        "clip.text_model.encoder.layers.0.mlp.weight": 1.0,
        "embed.weight": 1.0,
    }
    assert layer_factors(["embed.weight", "blocks.weight"], decay=0.5) == {"embed.weight": 1.0, "blocks.weight": 1.0}


def test_the_rate_rises_to_its_peak_and_falls_like_a_cosine_to_zero():
    config = OptimizerConfig(lr=2.0, warmup_share=0.2)
    rates = [learning_rate(step, steps=10, steps_per_epoch=1, config=config) for step in range(11)]
    assert rates[:2] == [1.0, 2.0]
    torch.testing.assert_close(rates[2:], [1 + math.cos(math.pi * k / 8) for k in range(9)])
    assert rates[-1] == pytest.approx(0.0)


def test_without_decay_the_rate_stays_at_its_peak():
    config = OptimizerConfig(lr=2.0, warmup_share=0.2, lr_decay="none")
    assert [learning_rate(step, steps=10, steps_per_epoch=1, config=config) for step in range(10)] == [1.0] + [2.0] * 9
