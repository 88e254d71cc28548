"""The samples that an editor learns from, all of them on its device, and the references that each may be given.

Knows tensors and groups of things that look alike; not how samples are drawn, the network or its losses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.diverse.drawn_samples import SAMPLE_COLUMNS, THING_COLUMNS, DrawnSamples
from reid_ray.model.editor.reference_crop import MEAN, STD
from reid_ray.train.editor.config import EditorObjective
from reid_ray.train.editor.edit_samples import UNKNOWN

# How often a reference is: cut out of the picture itself (DP), of its person's other shot, of another person's such thing; the rest is
# another kind of thing with such a surface.
OWN, OTHER_SHOT, SAME_LOOK = 0.05, 0.30, 0.40
_SETTLE_EVERY = 5.0


class SampleStore:
    """All samples so far as tensors on the device, and how their references are found."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._waiting: list[DrawnSamples] = []
        self._settled = 0.0
        self._columns: dict[str, torch.Tensor] = {}
        self._groups: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self._columns["picture"]) if self._columns else 0

    def add(self, drawn: DrawnSamples) -> None:
        """Samples that `settle` lays beside the others."""
        self._waiting.append(drawn)

    def fill(self, samples: Iterator[DrawnSamples | None], most: int, *, least: int) -> bool:
        """Takes what has been drawn, every few seconds; whether `least` are there."""
        while len(self) + sum(len(each.picture) for each in self._waiting) < most and (drawn := next(samples)) is not None:
            self.add(drawn)
        if time.monotonic() - self._settled > (_SETTLE_EVERY if len(self) else 0):
            self.settle()
            self._settled = time.monotonic()
        return len(self) >= least

    def settle(self) -> None:
        """Moves what was added to the device."""
        if not self._waiting:
            return
        first = len(self._columns["crop"]) if self._columns else 0
        parts: dict[str, list[np.ndarray]] = {name: [] for name in SAMPLE_COLUMNS + THING_COLUMNS}
        for drawn in self._waiting:
            for name, arrays in parts.items():
                arrays.append(getattr(drawn, name))
            parts["thing"][-1] = np.where(drawn.thing >= 0, drawn.thing + first, -1)
            parts["other"][-1] = drawn.other + first
            first += len(drawn.crop)
        self._waiting.clear()
        for name, arrays in parts.items():
            new = torch.from_numpy(np.concatenate(arrays)).to(self.device)
            self._columns[name] = torch.cat([self._columns[name], new]) if name in self._columns else new
        for name in ("look", "surface"):
            _, group_M, count_G = torch.unique(self._columns[name], return_inverse=True, return_counts=True)
            self._groups[name] = (torch.argsort(group_M), (count_G.cumsum(0) - count_G)[group_M], count_G[group_M])

    def batch(self, size: int, draws: torch.Generator, *, noise_power: float, objective: EditorObjective, drop: float) -> dict[str, Any]:
        """The inputs of EditorTraining, but for the empty prompt."""
        columns, device = self._columns, self.device

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=draws, device=device)

        row = (uniform(size) * len(self)).long().clamp_max(len(self) - 1)
        thing = columns["thing"][row].long()
        given = thing >= 0
        reference = self._references(thing.clamp_min(0), uniform(*thing.shape), uniform(*thing.shape))
        crops = columns["crop"][reference].permute(0, 1, 4, 2, 3).float() / 255
        mean, std = (torch.from_numpy(each).to(device)[:, None, None] for each in (MEAN, STD))
        crops = _flipped((crops - mean) / std, uniform(*thing.shape))
        turned = uniform(size)
        pictures = columns["picture"][row].permute(0, 3, 1, 2).float() / 127.5 - 1
        values = columns["value"][reference].long()
        values[~given] = UNKNOWN
        return {
            "pictures": _flipped(pictures, turned),
            "masks": _flipped(columns["mask"][row][:, None].float(), turned),
            "segments": _flipped(columns["segment"][row], turned),
            "tokens": columns["token"][row].long(),
            "positions": columns["position"][row].long(),
            "given": given,
            "crops": crops * given[..., None, None, None],
            "values": values,
            "timesteps": (1000 * uniform(size) ** noise_power).long().clamp_max(999),
            "inside": uniform(size) < objective.inside_share,
            "dropped": uniform(size) < drop,
        }

    def _references(self, thing: torch.Tensor, which: torch.Tensor, lot: torch.Tensor) -> torch.Tensor:
        found = self._alike("surface", thing, lot)
        found = torch.where(which < OWN + OTHER_SHOT + SAME_LOOK, self._alike("look", thing, lot), found)
        found = torch.where(which < OWN + OTHER_SHOT, self._columns["other"].long()[thing], found)
        return torch.where(which < OWN, thing, found)

    def _alike(self, name: str, thing: torch.Tensor, lot: torch.Tensor) -> torch.Tensor:
        order, first, count = self._groups[name]
        return order[first[thing] + torch.minimum((lot * count[thing]).long(), count[thing] - 1)]


def _flipped(values: torch.Tensor, lot: torch.Tensor) -> torch.Tensor:
    """Every picture whose lot is below a half, mirrored."""
    return torch.where((lot < 0.5).reshape(*lot.shape, *([1] * (values.dim() - lot.dim()))), values.flip(-1), values)
