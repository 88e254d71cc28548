"""The optimizer and its learning rate as a function of the step. Knows parameters; not models, losses or DeepSpeed."""

from __future__ import annotations

import math

import torch
from torch import nn

from reid_ray.config.training import OptimizerConfig


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over what trains; vectors (norms, biases) without weight decay. The rate is set before every step.

    Each group has a "factor" that the rate is multiplied by: config.heads_factor for the parameters below "heads.", else 1.
    """
    named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
    groups = [
        {
            "params": [weight for name, weight in named if (weight.ndim >= 2) == matrices and name.startswith("heads.") == heads],
            "weight_decay": config.weight_decay if matrices else 0.0,
            "factor": config.heads_factor if heads else 1.0,
        }
        for heads in (False, True)
        for matrices in (True, False)
    ]
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        [group for group in groups if group["params"]], lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
    )


def learning_rate(step: int, *, steps: int, config: OptimizerConfig) -> float:
    """The rate of `step` of `steps` (from 0): a linear rise to config.lr over the warm-up, then half a cosine down to zero."""
    warmup = round(config.warmup_share * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
