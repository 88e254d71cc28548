"""The objective: named, weighted loss terms over the features of all workers.

Knows losses, weights and how to gather with gradients; not models, data or DeepSpeed. Each worker's total is the loss of its own
anchors against everybody's candidates, and its gradient flows to every candidate, so averaging gradients over workers (which every
data-parallel engine does) gives exactly the gradient of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.distributed as dist

from reid_ray.train.losses.config import IdConfig, InfoNceConfig, IrrConfig, ObjectiveConfig, SdmConfig, SigmoidConfig, TripletConfig
from reid_ray.train.losses.contrastive import TILE, blocked_infonce_loss, blocked_sdm_loss, blocked_sigmoid_loss
from reid_ray.train.losses.identity import id_loss, triplet_loss
from reid_ray.train.losses.image_text import infonce_loss, sdm_loss
from reid_ray.train.losses.irr import irr_loss
from reid_ray.train.parts import Loss


class Pairs:
    """The batch as the loss terms see it: this worker's A pairs, and all workers' C pairs, gathered on demand.

    The own pairs are rows first .. first + A - 1 of all.

    Args:
        features: what the module returned, each with A rows; whatever the terms ask for.
        person_A: identity of each pair.
    """

    def __init__(self, features: dict[str, torch.Tensor], person_A: torch.Tensor) -> None:
        self.features, self.person_A = features, person_A
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
        """The candidates: image_CD, text_CD (with gradient to every worker) and person_C."""
        return {"image_CD": self.all_of("image"), "text_CD": self.all_of("text"), "person_C": self.persons}


class Term(Protocol):
    """One named part of the loss."""

    name: str
    weight: float

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        ...


class SdmTerm:
    """Similarity distribution matching; in tiles if `tile` is given."""

    name = "sdm"

    def __init__(self, config: SdmConfig, tile: int | None) -> None:
        self.weight, self._temperature, self._tile = config.weight, config.temperature, tile

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        own = (pairs.image_AD, pairs.text_AD, pairs.person_A)
        if self._tile is not None:
            return blocked_sdm_loss(*own, temperature=self._temperature, tile=self._tile)
        return sdm_loss(*own, **pairs.candidates, temperature=self._temperature)


class InfoNceTerm:
    """CLIP's contrastive loss; in tiles if `tile` is given."""

    name = "infonce"

    def __init__(self, config: InfoNceConfig, tile: int | None) -> None:
        self.weight, self._temperature, self._tile = config.weight, config.temperature, tile

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        own = (pairs.image_AD, pairs.text_AD)
        if self._tile is not None:
            return blocked_infonce_loss(*own, temperature=self._temperature, tile=self._tile)
        image_CD, text_CD = pairs.candidates["image_CD"], pairs.candidates["text_CD"]
        return infonce_loss(*own, image_CD=image_CD, text_CD=text_CD, first=pairs.first, temperature=self._temperature)


class SigmoidTerm:
    """SigLIP's loss, always in tiles: its cells share nothing."""

    name = "sigmoid"

    def __init__(self, config: SigmoidConfig, tile: int | None) -> None:
        self.weight, self._tile = config.weight, TILE if tile is None else tile

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        log_scale, bias = pairs.features["sigmoid"]
        return blocked_sigmoid_loss(pairs.image_AD, pairs.text_AD, pairs.person_A, log_scale=log_scale, bias=bias, tile=self._tile)


class TripletTerm:
    """Batch-hard triplet across the modalities."""

    name = "triplet"

    def __init__(self, config: TripletConfig) -> None:
        self.weight, self._margin = config.weight, config.margin

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        return triplet_loss(pairs.image_AD, pairs.text_AD, pairs.person_A, **pairs.candidates, margin=self._margin)


class IdTerm:
    """Cross-entropy over identities."""

    name = "id"

    def __init__(self, config: IdConfig) -> None:
        self.weight, self._smoothing = config.weight, config.smoothing

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        image_AK, text_AK = pairs.features["image_identity"], pairs.features["text_identity"]
        return id_loss(image_AK, text_AK, pairs.person_A, smoothing=self._smoothing)


class IrrTerm:
    """Prediction of masked words, the mean over those of all workers."""

    name = "irr"

    def __init__(self, config: IrrConfig) -> None:
        self.weight = config.weight

    def __call__(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar."""
        count_A = pairs.features["irr_count"]
        return irr_loss(pairs.features["irr_cost"], count_A, total=share_of_total(count_A))


class Objective:
    """The weighted sum of terms."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = terms

    def __call__(self, features: dict[str, torch.Tensor], person_A: torch.Tensor) -> Loss:
        """Add up the terms.

        Args:
            features: of the module: {"image": [A, D], "text": [A, D]}, this worker's unit vectors, and what else the terms ask for.
            person_A: identity of each pair, from 0.
        """
        pairs = Pairs(features, person_A)
        raw = {term.name: term(pairs) for term in self._terms}
        weighted = {term.name: term.weight * raw[term.name] for term in self._terms}
        total = torch.stack(list(weighted.values())).sum()
        return Loss(total, {n: v.detach() for n, v in raw.items()}, {n: v.detach() for n, v in weighted.items()})


def build_objective(config: ObjectiveConfig) -> Objective:
    """The terms of `config` whose weight is not zero."""
    terms: list[Term] = [
        SdmTerm(config.sdm, config.tile),
        InfoNceTerm(config.infonce, config.tile),
        SigmoidTerm(config.sigmoid, config.tile),
        TripletTerm(config.triplet),
        IdTerm(config.id),
        IrrTerm(config.irr),
    ]
    return Objective([term for term in terms if term.weight])


def share_of_total(count_A: torch.Tensor) -> torch.Tensor:
    """The sum of counts over all workers by the number of workers: sums of costs over it average to the mean of the whole batch."""
    total = count_A.sum().float()
    if _distributed():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return total


def gather_constant(values: torch.Tensor) -> torch.Tensor:
    """All-gather without gradient: [A, ...] -> [C, ...], rows of all workers in the order of ranks; each must bring as many rows."""
    if not _distributed():
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
    return _Gather.apply(features) if _distributed() else features


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def first_row(rows: int) -> int:
    """Where the own rows start among those of all workers, if each brings `rows`."""
    return dist.get_rank() * rows if _distributed() else 0
