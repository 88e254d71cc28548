"""The objective: named, weighted loss terms over the features of all workers.

Knows terms and weights; not their formulas, models, data or DeepSpeed. Each worker's total is the loss of its own anchors against
everybody's candidates, and its gradient flows to every candidate, so averaging gradients over workers (which every data-parallel engine
does) gives exactly the gradient of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from reid_ray.train.losses.across_workers import Pairs
from reid_ray.train.losses.config import ObjectiveConfig
from reid_ray.train.losses.term import Term
from reid_ray.train.parts import Loss


class Objective:
    """The weighted sum of terms.

    Args:
        terms: by the names that the log shows; those of weight 0 are left out.
        tile: see Pairs.
    """

    def __init__(self, terms: Mapping[str, Term], *, tile: int | None = None) -> None:
        self._terms = {name: term for name, term in terms.items() if term.weight}
        self._tile = tile

    def __call__(self, features: dict[str, torch.Tensor], person_A: torch.Tensor) -> Loss:
        """Add up the terms.

        Args:
            features: of the module: {"image": [A, D], "text": [A, D]}, this worker's unit vectors, and what else the terms ask for.
            person_A: identity of each pair, from 0.
        """
        pairs = Pairs(features, person_A, tile=self._tile)
        raw = {name: term.value(pairs) for name, term in self._terms.items()}
        weighted = {name: self._terms[name].weight * value for name, value in raw.items()}
        total = torch.stack(list(weighted.values())).sum()
        learnt = {"logit_scale": features["log_scale"].detach().exp().reshape(())} if "log_scale" in features else {}
        return Loss(total, {n: v.detach() for n, v in raw.items()}, {n: v.detach() for n, v in weighted.items()}, learnt)


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective of a dual encoder."""
    return Objective(config.terms, tile=config.tile)
