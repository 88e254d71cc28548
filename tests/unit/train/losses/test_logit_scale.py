"""The learnt logit scale against transformers' own CLIP loss: value, gradient, cap, chunks, tiles, and what is saved."""

from __future__ import annotations

import math

import pytest
import torch
from refusals import refused

from reid_ray.config.base import load_config
from reid_ray.errors import ConfigError
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import DualEncoder, build_dual_encoder, tokenise
from reid_ray.model.pretrained import load_encoder
from reid_ray.train.config import OptimizerConfig
from reid_ray.train.dual.towers import TwoTowers
from reid_ray.train.losses.config import ObjectiveConfig
from reid_ray.train.losses.logit_scale import LogitScale
from reid_ray.train.losses.objective import build_objective
from reid_ray.train.optimizer import build_optimizer

SHAPE = {"vision_width": 16, "vision_layers": 1, "text_width": 16, "text_layers": 1, "embed_dim": 8, "vocab_size": 300, "context": 16}
TEXTS = [f"a person in a {colour} coat" for colour in ("red", "blue", "green", "white", "grey")]
LEARNED = {"sdm": {"weight": 0}, "infonce": {"weight": 1, "temperature": "learned"}}


def encoder(scale: float = 7.0) -> DualEncoder:
    made = build_dual_encoder(ModelConfig(image_height=32, image_width=16, scratch=SHAPE), TEXTS)
    with torch.no_grad():
        made.model.logit_scale.fill_(math.log(scale))
    return made


def inputs(made: DualEncoder) -> dict[str, torch.Tensor]:
    pixels = torch.randn(5, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": pixels, "input_ids": tokenise(made.tokenizer, TEXTS, context=16)}


def towers(made: DualEncoder, *, chunk: int | None = None) -> TwoTowers:
    return TwoTowers(made, scale=LogitScale(made.model.logit_scale.item()), chunk=chunk)


@pytest.mark.parametrize(("chunk", "tile"), [(None, None), (2, None), (None, 16), (2, 16)])
def test_loss_and_gradients_are_those_of_transformers_clip(chunk, tile):
    published = encoder()
    expected = published.model(**inputs(published), return_loss=True).loss
    expected.backward()
    made = encoder()
    module = towers(made, chunk=chunk)
    loss = build_objective(ObjectiveConfig.model_validate({**LEARNED, "tile": tile}))(module(**inputs(made)), torch.arange(5))
    loss.total.backward()
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-6)
    assert loss.learnt["logit_scale"].item() == pytest.approx(7.0)
    torch.testing.assert_close(module.scale.shift.grad, published.model.logit_scale.grad.reshape(1), rtol=1e-4, atol=1e-6)
    weights = dict(published.model.named_parameters())
    for name, weight in module.model.named_parameters():
        assert (weight.grad - weights[name].grad).norm() <= 1e-4 * weights[name].grad.norm() + 1e-6, name


@pytest.mark.parametrize("uphill", [1.0, -1.0])
def test_at_a_hundred_the_scale_goes_down_if_the_loss_asks_for_it_and_never_up(uphill):
    scale = LogitScale(math.log(250.0))
    assert scale().exp().item() == pytest.approx(100.0)
    optimizer = torch.optim.SGD(scale.parameters(), lr=0.5)
    (uphill * scale()).sum().backward()
    optimizer.step()
    assert scale().exp().item() == pytest.approx(100.0 * math.exp(-0.5) if uphill > 0 else 100.0)


def test_a_step_that_overshoots_a_hundred_is_not_seen_by_the_loss_nor_by_what_is_saved():
    scale = LogitScale(math.log(99.0))
    with torch.no_grad():
        scale.shift += 0.5
    assert scale().exp().item() == pytest.approx(100.0)
    assert math.exp(scale.value(scale.shift)) == pytest.approx(100.0)


def test_a_scale_that_diverges_downwards_is_saved_as_a_number():
    assert math.isfinite(math.exp(-LogitScale(4.6).value(torch.tensor([-1e30]))))
    assert math.isnan(LogitScale(4.6).value(torch.tensor([math.nan])))


def test_half_precision_keeps_the_start_and_small_steps():
    scale = LogitScale(math.log(1 / 0.07)).bfloat16()
    with torch.no_grad():
        scale.shift += 1e-4
    assert scale().item() == pytest.approx(math.log(1 / 0.07) + 1e-4, abs=1e-6)


@pytest.mark.slow
def test_what_was_learnt_is_saved_and_is_where_the_next_run_starts(tmp_path):
    made = encoder()
    module = towers(made)
    state = {name: weight.detach().clone() for name, weight in module.state_dict().items()}
    state["scale.shift"].fill_(0.25)
    module.encoder_with(state, temperature=0.02).save(tmp_path / "model", {})
    loaded = load_encoder(tmp_path / "model")
    assert loaded.model.logit_scale.item() == pytest.approx(math.log(7.0) + 0.25)
    assert towers(loaded)(**inputs(loaded))["log_scale"].item() == pytest.approx(math.log(7.0) + 0.25)


def test_it_learns_at_the_rate_of_the_weights_and_never_decays():
    config = OptimizerConfig(weight_decay=0.1, heads_factor=5, decay_of="all", layer_decay=0.5, bias_factor=2)
    module = towers(encoder())
    (group,) = [g for g in build_optimizer(module, config).param_groups if any(w is module.scale.shift for w in g["params"])]
    assert (group["factor"], group["weight_decay"]) == (1.0, 0.0)


def test_the_saved_temperature_is_that_of_the_softmax_that_trained():
    for changes, expected in (([], 0.02), (["sdm.weight=0", "infonce.weight=1"], 0.07), (["infonce.weight=1"], 0.02)):
        assert load_config(ObjectiveConfig, None, changes).saved_temperature == expected


@pytest.mark.parametrize("temperature", ["0", "-0.1", "learnt"])
def test_a_temperature_that_is_none_is_refused(temperature):
    with refused(ConfigError, "infonce", "temperature"):
        load_config(ObjectiveConfig, None, [f"infonce.temperature={temperature}"])


def test_two_losses_that_learn_one_scale_are_refused():
    with refused(ConfigError, "infonce.temperature", "sigmoid"):
        load_config(ObjectiveConfig, None, ["infonce={weight: 1, temperature: learned}", "sigmoid.weight=1"])
