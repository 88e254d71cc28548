"""Interfaces of the training loop (protocols): engine, objective, data loader, masking, validation. What a recipe builds, the loop uses.

Knows tensors and names; not models, Ray or DeepSpeed. A recipe builds Parts on every worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from reid_ray.train.zero import ZeroEngine

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainBatch:
    """A worker's share of one step: `inputs` of the module, and of each of its A samples the identity and the row of its text."""

    inputs: Tensors
    person_A: torch.Tensor
    text_A: torch.Tensor


@dataclass(frozen=True)
class Loss:
    """`total` is what is differentiated; `raw` and `weighted` name each term's value before and after its weight, detached.

    `learnt` names numbers that the losses learn and that are worth watching, such as logit_scale.
    """

    total: torch.Tensor
    raw: dict[str, torch.Tensor]
    weighted: dict[str, torch.Tensor]
    learnt: dict[str, torch.Tensor] = field(default_factory=dict)


class StepPlan(Protocol):
    """The batch sampler: which samples each step sees."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over all samples."""
        ...


class BatchFeed(Protocol):
    """The data loader of one worker; a step's batch is a function of the step alone, so that a resumed run sees the same.

    elsewhere: finds the prepared data on whatever node it is called; None where all nodes see them at the same place.
    """

    elsewhere: Callable[[], Path] | None

    @property
    def plan(self) -> StepPlan:
        """What the batches follow."""
        ...

    def batches(self, start: int, stop: int) -> Iterator[TrainBatch]:
        """The batches of steps start .. stop - 1, counted over the whole run."""
        ...

    def names_of(self, rows: np.ndarray) -> list[str]:
        """What samples are called in messages, by TrainBatch.text_A."""
        ...


class Masking(Protocol):
    """Changes a step's texts before the forward pass and learns from its features after it; its state is part of a checkpoint."""

    def before(self, inputs: Tensors, text_A: torch.Tensor, step: int) -> Tensors:
        """The inputs that the module sees instead."""
        ...

    def after(self, inputs: Tensors, text_A: torch.Tensor, features: Tensors) -> None:
        """Store what the step's features say of its texts."""
        ...

    def save(self, folder: Path) -> None:
        """Write this worker's state; every worker calls it."""
        ...

    def load(self, folder: Path) -> None:
        """Read this worker's state from what any number of workers wrote."""
        ...


@dataclass(frozen=True)
class Transfer:
    """Direct transfer: another data set that is scored after each validation, to be reported, never to select weights by.

    evaluate gives its numbers; every worker calls it, and rank 0's count.
    """

    dataset: str
    split: str
    evaluate: Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Parts:
    """One worker's parts.

    engine: the module and its optimizer.
    objective: features of the module and the identities of their rows -> Loss.
    feed: the batches.
    write: the module's weights by name (float32, CPU), a folder that does not exist yet, facts -> a model folder whose
        manifest.json holds the facts under "facts". Called by rank 0 alone.
    masking: None if texts are taken as they are.
    validate: numbers of the validation split; every worker calls it, and rank 0's count. None keeps the last weights.
    transfer: other data sets to score after each validation.
    whole_model: whether `write` is given frozen weights too, or only those that train (an adapter).
    finish: what is left to do after the last step, on every worker.
    """

    engine: ZeroEngine
    objective: Callable[[Tensors, torch.Tensor], Loss]
    feed: BatchFeed
    write: Callable[[Tensors, Path, dict[str, Any]], None]
    masking: Masking | None = None
    validate: Callable[[], dict[str, float]] | None = None
    transfer: Sequence[Transfer] = ()
    whole_model: bool = True
    finish: Callable[[], None] | None = None
