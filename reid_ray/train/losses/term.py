"""Loss term interface: a weight, and a value that is computed from pairs of pictures and texts.

A dual encoder's term is a section of the configuration, so one class in one file states its keys, their defaults and its formula. The
configuration is read where no torch is: a term imports it inside `value`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from reid_ray.config.base import Section

if TYPE_CHECKING:
    import torch

    from reid_ray.train.losses.across_workers import Pairs


class Term(Protocol):
    """One part of the loss."""

    @property
    def weight(self) -> float:
        """In the total loss; 0 leaves the term out."""

    def value(self, pairs: Pairs) -> torch.Tensor:
        """The unweighted value, a scalar: of this worker's anchors against the candidates of all workers."""


class LossTerm(Section, ABC):
    """A term of a dual encoder's objective; its key there is its name in the log."""

    weight: float = Field(0.0, ge=0, description="weight in the total loss; 0 leaves the term out")

    @abstractmethod
    def value(self, pairs: Pairs) -> torch.Tensor:
        """See Term.value."""
