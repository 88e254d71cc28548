"""Batch of a loss term across workers: this worker's pairs as anchors, all workers' pairs as candidates (differentiable all-gather).

Knows how to gather with gradients; not losses, weights or models. Without torch.distributed one process is everybody.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist

from reid_ray.train.collectives import distributed


class Pairs:
    """The batch as the loss terms see it: this worker's A pairs, and all workers' C pairs, gathered on demand.

    The own pairs are rows first .. first + A - 1 of all.

    Args:
        features: what the module returned, each with A rows: "image" [A, D] and "text" [A, D] are unit vectors.
        person_A: identity of each pair, integers.
        tile: side of the tiles that a loss may be computed in; None computes this worker's rows at once.
    """

    def __init__(self, features: dict[str, torch.Tensor], person_A: torch.Tensor, *, tile: int | None = None) -> None:
        self.features, self.person_A, self.tile = features, person_A, tile
        if "image" in features:  # a term asks only for what its module gives
            self.image_AD = features["image"]
        if "text" in features:
            self.text_AD = features["text"]
        self.first = first_row(len(person_A))
        self._gathered: dict[str, torch.Tensor] = {}

    @cached_property
    def persons(self) -> torch.Tensor:
        """Identities of all workers' pairs."""
        return gather_constant(self.person_A)

    def all_of(self, name: str) -> torch.Tensor:
        """Rows of the feature `name` of all workers, with gradient to each; gathered once a step."""
        if name not in self._gathered:
            self._gathered[name] = gather_rows(self.features[name])
        return self._gathered[name]

    @cached_property
    def candidates(self) -> dict[str, torch.Tensor]:
        """All workers' pairs: image_CD, text_CD (with gradient to every worker) and person_C."""
        return {"image_CD": self.all_of("image"), "text_CD": self.all_of("text"), "person_C": self.persons}


def share_of_total(count_A: torch.Tensor) -> torch.Tensor:
    """Normaliser of a loss that is summed per worker, a scalar: the sum of counts over all workers by the number of workers.

    Each worker's sum of costs over it, averaged over workers, is the mean of the whole batch.
    """
    total = count_A.sum().float()
    if distributed():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return total


def gather_constant(values: torch.Tensor) -> torch.Tensor:
    """All-gather without gradient: [A, ...] -> [C, ...], rows of all workers in the order of ranks; each must bring as many rows."""
    if not distributed():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """Differentiable all-gather: rows of all workers; a row's gradient is the sum of its gradients in every worker's loss.

    torch's own gathers with gradient are not used: one is deprecated, the other (functional collectives, torch 2.13) corrupted memory
    under gloo on a busy machine. dist.all_gather with the own rows put back, as often seen, drops the gradient to others' rows.
    """

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor) -> torch.Tensor:
        ctx.rows = features.shape[0]
        return gather_constant(features)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank() * ctx.rows : (dist.get_rank() + 1) * ctx.rows]


def gather_rows(features: torch.Tensor) -> torch.Tensor:
    """Differentiable all-gather: [A, ...] -> [C, ...], rows of all workers in the order of ranks; each must bring as many rows."""
    return _Gather.apply(features) if distributed() else features


def first_row(rows: int) -> int:
    """Where the own rows start among those of all workers, if each brings `rows`."""
    return dist.get_rank() * rows if distributed() else 0
