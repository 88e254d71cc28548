"""The objective: named, weighted loss terms over the features of all workers.

Knows losses, weights and how to gather with gradients; not models, data or DeepSpeed. Each worker's total is the loss of its own
anchors against everybody's candidates, and its gradient flows to every candidate, so averaging gradients over workers (which every
data-parallel engine does) gives exactly the gradient of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist

from reid_ray.config.train import InfoNceConfig, ObjectiveConfig, SdmConfig
from reid_ray.train.losses import infonce_loss, sdm_loss


@dataclass(frozen=True)
class Pairs:
    """Features of this worker's A pairs and of all workers' C pairs; the own ones are rows first .. first + A - 1 of all."""

    image_AD: torch.Tensor
    text_AD: torch.Tensor
    person_A: torch.Tensor
    image_CD: torch.Tensor
    text_CD: torch.Tensor
    person_C: torch.Tensor
    first: int


@dataclass(frozen=True)
class Loss:
    """`total` is what is differentiated; `raw` and `weighted` name each term's value before and after its weight, detached."""

    total: torch.Tensor
    raw: dict[str, torch.Tensor]
    weighted: dict[str, torch.Tensor]


class Term(Protocol):
    """One named part of the loss."""

    name: str
    weight: float

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        ...


class SdmTerm:
    """Similarity distribution matching."""

    name = "sdm"

    def __init__(self, config: SdmConfig) -> None:
        self.weight, self._temperature = config.weight, config.temperature

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        return sdm_loss(
            pairs.image_AD,
            pairs.text_AD,
            pairs.person_A,
            image_CD=pairs.image_CD,
            text_CD=pairs.text_CD,
            person_C=pairs.person_C,
            temperature=self._temperature,
        )


class InfoNceTerm:
    """CLIP's contrastive loss."""

    name = "infonce"

    def __init__(self, config: InfoNceConfig) -> None:
        self.weight, self._temperature = config.weight, config.temperature

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        return infonce_loss(
            pairs.image_AD,
            pairs.text_AD,
            image_CD=pairs.image_CD,
            text_CD=pairs.text_CD,
            first=pairs.first,
            temperature=self._temperature,
        )


class Objective:
    """The weighted sum of terms."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = terms

    def __call__(self, features: dict[str, torch.Tensor], person_A: torch.Tensor) -> Loss:
        """Gather, then add up the terms.

        Args:
            features: {"image": [A, D], "text": [A, D]}, this worker's unit vectors.
            person_A: identity of each pair.
        """
        image_AD, text_AD = features["image"], features["text"]
        pairs = Pairs(image_AD, text_AD, person_A, _gather(image_AD), _gather(text_AD), gather_constant(person_A), _rank() * len(image_AD))
        raw = {term.name: term(pairs) for term in self._terms}
        weighted = {term.name: term.weight * raw[term.name] for term in self._terms}
        total = torch.stack(list(weighted.values())).sum()
        return Loss(total, {n: v.detach() for n, v in raw.items()}, {n: v.detach() for n, v in weighted.items()})


def build_objective(config: ObjectiveConfig) -> Objective:
    """The terms of `config` whose weight is not zero."""
    terms: list[Term] = [SdmTerm(config.sdm), InfoNceTerm(config.infonce)]
    return Objective([term for term in terms if term.weight])


def gather_constant(values: torch.Tensor) -> torch.Tensor:
    """Rows of all workers in the order of their ranks, without gradient; every worker must bring as many rows."""
    if not _distributed():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """Rows of all workers; the gradient of a row is the sum of what every worker's loss has to say about it.

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


def _gather(features: torch.Tensor) -> torch.Tensor:
    return _Gather.apply(features) if _distributed() else features


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _rank() -> int:
    return dist.get_rank() if _distributed() else 0
