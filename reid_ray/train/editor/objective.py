"""The objective of editors: denoising + weighted localisation + weighted attribute reading, means over samples.

Each worker has as many samples, so the mean over workers of these means is that of the whole batch. Knows features by name; no models.
"""

from __future__ import annotations

import torch

from reid_ray.train.editor.config import EditorObjective
from reid_ray.train.parts import Loss


class EditObjective:
    """The weighted sum of what EditorTraining gives.

    Args:
        config: weights.
    """

    def __init__(self, config: EditorObjective) -> None:
        weights = {"denoising": 1.0, "localisation": config.localisation, "attribute": config.attribute}
        self._weights = {name: weight for name, weight in weights.items() if weight}

    def __call__(self, features: dict[str, torch.Tensor], person_A: torch.Tensor) -> Loss:
        """Add up the terms; persons do not matter."""
        raw = {name: features[name].mean() for name in self._weights}
        weighted = {name: self._weights[name] * value for name, value in raw.items()}
        total = torch.stack(list(weighted.values())).sum()
        return Loss(total, {n: v.detach() for n, v in raw.items()}, {n: v.detach() for n, v in weighted.items()})
