"""The learnt temperature of InfoNCE: CLIP's logit scale (Radford et al. 2021), as a parameter that any ZeRO stage and precision can hold.

Knows one number and the group of workers; not features, models or files.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from reid_ray.train.collectives import distributed

MOST = 100.0  # CLIP: "clipped to prevent scaling the logits by more than 100"
_MOST_LOG = math.log(MOST)
_LEAST_LOG = -80.0  # where only a run that diverges comes: a temperature further up would be no float32 number


class LogitScale(nn.Module):
    """The logarithm of what cosines are multiplied by. forward() -> [1] in float32, at most log 100, with a gradient.

    The parameter is how far it has come from its start: bf16, in which DeepSpeed may keep a parameter, tells numbers near CLIP's 4.6 apart
    in steps of 0.03 only, and numbers near zero as finely as needed. It has one element rather than none: DeepSpeed cannot hold that.

    Args:
        start: where it begins, the model's own log scale; more than log 100 begins there.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self._start = min(start, _MOST_LOG)
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self) -> torch.Tensor:
        """See above."""
        return _Capped.apply(self.shift.float() + self._start)

    def value(self, shift: torch.Tensor) -> float:
        """The log scale of a stored parameter, at most log 100 and not so small that its temperature is no number."""
        return max(min(self._start + shift.item(), _MOST_LOG), _LEAST_LOG)


class _Capped(torch.autograd.Function):
    """min(x, log 100). At the cap a step further up has no gradient and a step down its own, so that CLIP's, which starts there, can move.

    The gradient is averaged over workers before it is judged: each has the anchors' share only, and their signs may differ.
    """

    @staticmethod
    def forward(ctx: Any, log_scale: torch.Tensor) -> torch.Tensor:
        ctx.at_cap = log_scale.detach() >= _MOST_LOG
        return log_scale.clamp(max=_MOST_LOG)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient = gradients[0].clone()
        if distributed():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
        return gradient.masked_fill(ctx.at_cap & (gradient < 0), 0.0)
