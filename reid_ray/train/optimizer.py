"""Optimizer and learning-rate schedule: Adam(W), layer-wise decay, linear warm-up, cosine. Knows parameters; not models or DeepSpeed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import nn

from reid_ray.train.config import OptimizerConfig

_CLASSIFIERS = ("heads.classify.", "heads.interaction.head.")  # of identities and of words, whose biases learn as their weights do
# Norms of IRR that begin at one, not at random: IRRA's code gives their scales the rate of CLIP's.
_AS_THE_TOWERS = tuple(f"heads.interaction.{name}_norm." for name in ("text", "image", "output"))
_SCALES = ("scale.shift", "sigmoid.log_scale", "sigmoid.bias")  # one number each, of which zero is no default to decay to
_LAYER = re.compile(r"^(.*?)\.(?:layers|blocks)\.(\d+)\.")


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over what trains; weight decay as config.decay_of says. The rate is set before every step.

    Each group has a "factor" that the rate is multiplied by: config.heads_factor for the parameters below "heads." that begin at random,
    else what layer_factors gives; config.bias_factor takes its place for biases. A learnt logit scale never decays.
    """
    named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
    factors = layer_factors([name for name, _ in named], decay=config.layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, weight in named:
        factor = config.heads_factor if name.startswith("heads.") and not name.startswith(_AS_THE_TOWERS) else factors[name]
        bias = name.endswith("bias")
        if bias and config.bias_factor is not None and not name.startswith(_CLASSIFIERS):
            factor = config.bias_factor
        decays = weight.ndim >= 2 or config.decay_of == "all" or (config.decay_of == "weights" and not bias)
        decays = decays and not name.endswith(_SCALES)
        groups.setdefault((factor, decays), []).append(weight)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        [
            {"params": weights, "weight_decay": config.weight_decay if decays else 0.0, "factor": factor}
            for (factor, decays), weights in groups.items()
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def layer_factors(names: Sequence[str], *, decay: float) -> dict[str, float]:
    """Layer-wise decay of the rate, as BEiT fine-tunes: name of a weight -> factor.

    In a tower of n layers, layer k (from 0) has decay ** (n - k), what comes before the layers decay ** (n + 1), and what comes after
    them 1. Towers are told by their names: "text_model.encoder.layers.3.mlp" is layer 3 of the tower "text_model.encoder", whose
    embeddings and first norm are what has "embed" or "pre_" in its name under "text_model".
    """
    found = {name: match for name in names if (match := _LAYER.match(name))}
    depth = {tower: 1 + max(int(m[2]) for m in found.values() if m[1] == tower) for tower in {m[1] for m in found.values()}}
    factors = dict.fromkeys(names, 1.0)
    for name in names:
        if name in found:
            factors[name] = decay ** (depth[found[name][1]] - int(found[name][2]))
        elif "embed" in name or "pre_" in name:
            own = [tower for tower in depth if name.startswith(tower.rpartition(".")[0])]
            factors[name] = decay ** (depth[max(own, key=len)] + 1) if own else 1.0
    return factors


def learning_rate(step: int, *, steps: int, steps_per_epoch: int, config: OptimizerConfig) -> float:
    """The rate of `step` of `steps` (from 0): a linear rise from config.warmup_from to 1 times config.lr, then config.lr_decay.

    With config.rate_by epoch, that of its epoch: config.warmup_from in the first, 1 in the first after the rise.
    """
    by_epoch = config.rate_by == "epoch"
    place, end = (step // steps_per_epoch, steps / steps_per_epoch) if by_epoch else (step, steps)
    warmup = round(config.warmup_share * end)
    if place < warmup:
        return config.lr * (config.warmup_from + (1 - config.warmup_from) * (place if by_epoch else place + 1) / warmup)
    if config.lr_decay == "none":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (place - warmup) / max(1, end - warmup)))
