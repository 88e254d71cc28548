"""NaN and infinity checks: the first loss or gradient that is not finite ends a run, on all workers at once, and names the rows at fault.

Knows losses, features and rows by name; not models, files or Ray. A row is one sample of a step's batch, a caption with its image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from reid_ray.errors import TrainingError
from reid_ray.train.collectives import all_gather, all_reduce_any
from reid_ray.train.parts import Loss, Tensors

NORM = "gradient norm"
_SHOWN = 8  # rows named in the sentence; the log holds all


@dataclass(frozen=True)
class NotFinite:
    """What is not finite after a step, the same on every worker.

    terms: names of losses, "loss" for their sum, NORM for the gradients'.
    ranks: the workers at fault.
    rows: their samples at fault, by name.
    every_row: whether that is the whole batch, so that the weights are at fault and not a sample.
    """

    terms: list[str]
    ranks: list[int]
    rows: list[str]
    every_row: bool

    def sentence(self, *, step: int, checkpoint: int | None, precision: str) -> str:
        """What happened, what is kept and what helps.

        Args:
            step: the step that failed, counted from 1 as the log does.
            checkpoint: step of the newest checkpoint; None if there is none.
            precision: engine.precision.
        """
        named = ", ".join(self.rows[:_SHOWN]) + (f" and {len(self.rows) - _SHOWN} more" if len(self.rows) > _SHOWN else "")
        where = f"on all {len(self.rows)} rows of the batch" if self.every_row else f"on {len(self.rows)} row{'s' * (len(self.rows) > 1)}"
        kept = "there is no checkpoint yet" if checkpoint is None else f"the checkpoint of step {checkpoint} is kept"
        remedy = ["lower optimizer.lr, set optimizer.clip_norm or a longer optimizer.warmup_share"]
        if precision != "fp32":
            remedy.append("set engine.precision to fp32")
        if not self.every_row:
            remedy.append("look at these rows' images and captions")
        return (
            f"step {step}: {', '.join(self.terms)} {'is' if len(self.terms) == 1 else 'are'} not finite, {where} of rank "
            f"{', '.join(map(str, self.ranks))} ({named}); nothing is published and {kept}: the same command goes on from there and will "
            f"stop here again unless something changes, so {', or '.join(remedy)} (a changed option starts anew)"
        )


def not_finite(loss: Loss, norm: float, features: Tensors, *, device: torch.device, rows: Callable[[], list[str]]) -> NotFinite | None:
    """What is not finite on any worker; None if all is well. Every worker must ask after each step, and all get the same answer.

    Args:
        loss: this worker's.
        norm: of the gradients, before clipping.
        features: of this worker's rows, as the module gave them.
        device: where workers exchange flags.
        rows: names of this worker's rows; asked only if something is wrong.
    """
    terms = ["loss", *loss.raw]
    own = ~torch.isfinite(torch.stack([loss.total.detach(), *loss.raw.values()]).float())
    flags = torch.cat([own, torch.tensor([not math.isfinite(norm)], device=own.device)])
    raised = all_reduce_any(flags, device=device)
    if not any(raised):
        return None
    names = rows()
    reports = all_gather((bool(own.any()), names, _rows_not_finite(features, len(names))))
    wrong = [name for name, flag in zip([*terms, NORM], raised, strict=True) if flag]
    at_fault = _at_fault(reports)
    found = [row for _, rows_of in at_fault for row in rows_of]
    return NotFinite(wrong, [rank for rank, _ in at_fault], found, len(found) == sum(len(each) for _, each, _ in reports))


def finite_or_none(value: float | None) -> float | None:
    """The number, or None in place of NaN and infinity, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None


def refuse_not_finite_weights(weights_finite: bool, *, device: torch.device, step: int) -> None:
    """Refuse to keep weights that are NaN or infinite on any worker; every worker must ask.

    Raises:
        TrainingError: on every worker.
    """
    if all_reduce_any([not weights_finite], device=device)[0]:
        raise TrainingError(f"step {step}: trained weights are not finite, so they are not kept; lower optimizer.lr")


def _rows_not_finite(features: Tensors, rows: int) -> list[int]:
    """Rows of which some feature is not finite, before the rows of other workers have entered a loss."""
    wrong_A = torch.zeros(rows, dtype=torch.bool)
    for value in features.values():
        if value.is_floating_point() and value.ndim and len(value) == rows:
            wrong_A |= ~torch.isfinite(value.detach().reshape(rows, -1)).all(dim=1).cpu()
    return torch.nonzero(wrong_A).flatten().tolist()


def _at_fault(reports: Sequence[tuple[bool, list[str], list[int]]]) -> list[tuple[int, list[str]]]:
    """(rank, its rows at fault): those whose features are wrong, else all of the workers whose loss is, else all."""
    by_feature = [(rank, [names[row] for row in wrong]) for rank, (_, names, wrong) in enumerate(reports) if wrong]
    by_loss = [(rank, names) for rank, (bad, names, _) in enumerate(reports) if bad]
    return by_feature or by_loss or [(rank, names) for rank, (_, names, _) in enumerate(reports)]
