"""Blockwise distributed contrastive losses (SDM, InfoNCE, SigLIP's sigmoid): memory grows with the batch B, not with its square.

The B x B matrix of similarities is never held: it is computed tile by tile, and once more for the gradient. A tile leaves behind a few
running sums per picture and per text (a streaming log-sum-exp). On several workers each one computes the rows of its own pictures against
all workers' texts; the sums of the columns are added up over workers. The result is the loss of the whole batch on every worker, equal to
reid_ray.train.losses.image_text on one process.

Gradients are scaled by the number of workers, as after a differentiable gather: averaging them over workers, which every
data-parallel engine does, gives the gradient of one process with the whole batch. Knows tensors and torch.distributed; not models,
configuration or engines. A is the number of a worker's own pairs, B of all, R and C are the sides of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional

TILE = 1024


def blocked_sdm_loss(
    image_AD: torch.Tensor, text_AD: torch.Tensor, person_A: torch.Tensor, *, temperature: float, eps: float = 1e-8, tile: int = TILE
) -> torch.Tensor:
    """reid_ray.train.losses.image_text.sdm_loss over the pairs of all workers, tile by tile.

    Args:
        image_AD: unit vectors of this worker's pictures; every worker brings as many.
        text_AD: unit vectors of this worker's texts, row by row of the same pair.
        person_A: identity of each pair, integers.
        temperature: > 0; 0.02 in the paper.
        eps: as in sdm_loss.
        tile: pictures and texts per tile; memory is a few times tile x tile.

    Returns:
        The loss of the whole batch, a scalar, the same on every worker.
    """
    scale, bias = image_AD.new_tensor(1 / temperature), image_AD.new_zeros(())
    return _Tiled.apply(image_AD, text_AD, scale, bias, person_A, _Sdm(eps), tile)


def blocked_infonce_loss(
    image_AD: torch.Tensor, text_AD: torch.Tensor, *, temperature: float | torch.Tensor, tile: int = TILE
) -> torch.Tensor:
    """reid_ray.train.losses.image_text.infonce_loss over the pairs of all workers, tile by tile.

    Arguments as in blocked_sdm_loss; a temperature that is learnt is a tensor of one element.
    """
    scale = (1 / temperature).reshape(()) if isinstance(temperature, torch.Tensor) else image_AD.new_tensor(1 / temperature)
    bias = image_AD.new_zeros(())
    first = _rank() * len(image_AD)
    own_A = torch.arange(first, first + len(image_AD), device=image_AD.device)
    return _Tiled.apply(image_AD, text_AD, scale, bias, own_A, _InfoNce(), tile)


def blocked_sigmoid_loss(
    image_AD: torch.Tensor,
    text_AD: torch.Tensor,
    person_A: torch.Tensor,
    *,
    log_scale: torch.Tensor,
    bias: torch.Tensor,
    tile: int = TILE,
) -> torch.Tensor:
    """SigLIP's sigmoid loss (Zhai et al., ICCV 2023, algorithm 1) over the pairs of all workers, tile by tile.

    -1/B sum_ij log sigmoid(z_ij (exp(log_scale) cos_ij + bias)), z_ij = 1 where picture i and text j are of one identity, else -1.
    With an identity per picture, as in pre-training, that is SigLIP's diagonal.

    Args:
        image_AD: unit vectors of this worker's pictures; every worker brings as many.
        text_AD: unit vectors of this worker's texts, row by row of the same pair.
        person_A: identity of each pair, integers.
        log_scale: learnt, one element; starts at log 10 in the paper.
        bias: learnt, one element; starts at -10 in the paper.
        tile: as in blocked_sdm_loss.

    Returns:
        The loss of the whole batch, a scalar, the same on every worker.
    """
    return _Tiled.apply(image_AD, text_AD, log_scale.exp().reshape(()), bias.reshape(()), person_A, _Sigmoid(), tile)


class _Tiled(torch.autograd.Function):
    """loss(scale * image @ text.T + bias), tile by tile; the term says what a tile adds to the sums and what gradient it gets."""

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd passes them by position)
        ctx: Any,
        image_AD: torch.Tensor,
        text_AD: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        key_A: torch.Tensor,
        term: _Sdm | _InfoNce | _Sigmoid,
        tile: int,
    ) -> torch.Tensor:
        text_BD, key_B = _gather(_wide(text_AD)), _gather(key_A)
        image_AD = _wide(image_AD)
        term.begin(len(image_AD), len(text_BD), image_AD)
        for rows, columns in _tiles(len(image_AD), len(text_BD), tile):
            logit_RC = (image_AD[rows] @ text_BD[columns].T).mul_(scale).add_(bias)
            term.add(rows, columns, logit_RC, key_A[rows, None] == key_B[None, columns])
        ctx.save_for_backward(image_AD, text_BD, scale, bias, key_A, key_B)
        ctx.term, ctx.tile = term, tile
        return term.finish()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        image_AD, text_BD, scale, bias, key_A, key_B = ctx.saved_tensors
        grad_image_AD, grad_text_BD = torch.zeros_like(image_AD), torch.zeros_like(text_BD)
        grad_scale, grad_bias = torch.zeros_like(scale), torch.zeros_like(bias)
        for rows, columns in _tiles(len(image_AD), len(text_BD), ctx.tile):
            cosine_RC = image_AD[rows] @ text_BD[columns].T
            logit_RC = cosine_RC.mul(scale).add_(bias)
            grad_RC = ctx.term.gradient(rows, columns, logit_RC, key_A[rows, None] == key_B[None, columns])
            grad_image_AD[rows].addmm_(grad_RC, text_BD[columns])
            grad_text_BD[columns].addmm_(grad_RC.T, image_AD[rows])
            if any(ctx.needs_input_grad[2:4]):
                grad_scale += (grad_RC * cosine_RC).sum()
                grad_bias += grad_RC.sum()
        factor = grad * _world()
        grad_text_AD = _reduce_scatter(grad_text_BD.mul_(factor * scale))
        return grad_image_AD.mul_(factor * scale), grad_text_AD, grad_scale * factor, grad_bias * factor, None, None, None


class _Sdm:
    """KL(p || q) in both directions. With lse = peak + log z: row loss = u / z - log z - sum_j p_j log(q_j + eps)."""

    def __init__(self, eps: float) -> None:
        self._eps = eps

    def begin(self, rows: int, columns: int, like: torch.Tensor) -> None:
        self._total = columns
        self._row, self._column = _Sums(rows, like), _Sums(columns, like)

    def add(self, rows: slice, columns: slice, logit_RC: torch.Tensor, match_RC: torch.Tensor) -> None:
        self._row.add(rows, logit_RC, match_RC)
        self._column.add(columns, logit_RC.T, match_RC.T)

    def finish(self) -> torch.Tensor:
        self._column.merge()
        sides = [self._divergence(self._row), self._divergence(self._column)]
        (self._row_lse, self._row_loss, self._row_log_q), (self._column_lse, self._column_loss, self._column_log_q) = sides
        return (_sum_over_workers(self._row_loss.sum()) + self._column_loss.sum()) / self._total

    def gradient(self, rows: slice, columns: slice, logit_RC: torch.Tensor, match_RC: torch.Tensor) -> torch.Tensor:
        grad_RC = self._side(logit_RC, match_RC, self._row_lse[rows], self._row_loss[rows], self._row_log_q[rows])
        grad_CR = self._side(logit_RC.T, match_RC.T, self._column_lse[columns], self._column_loss[columns], self._column_log_q[columns])
        return grad_RC.add_(grad_CR.T).div_(self._total)

    def _divergence(self, sums: _Sums) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        log_z, share = sums.z.log(), sums.matched_z / sums.z
        log_q = torch.log(1 / sums.matches.clamp_min(1) + self._eps)
        loss = sums.u / sums.z - log_z - share * log_q - (1 - share) * math.log(self._eps)
        # An anchor without a candidate of its identity has no q and adds zero: an infinite lse makes its p, and so its gradient, zero.
        alone = sums.matches == 0
        return (sums.peak + log_z).masked_fill(alone, math.inf), loss.masked_fill(alone, 0), log_q

    def _side(
        self, logit_RC: torch.Tensor, match_RC: torch.Tensor, lse: torch.Tensor, loss: torch.Tensor, log_q: torch.Tensor
    ) -> torch.Tensor:
        # d loss / d logit_j = p_j (log p_j - log(q_j + eps) - loss): the softmax's own derivative sums to zero.
        log_p_RC = logit_RC - lse[:, None]
        p_RC = log_p_RC.exp()
        offset_RC = torch.where(match_RC, (log_q + loss)[:, None], (math.log(self._eps) + loss)[:, None])
        return log_p_RC.clamp_min_(torch.finfo(p_RC.dtype).min).sub_(offset_RC).mul_(p_RC)


class _InfoNce:
    """Cross-entropy of the own pair, the mean of both directions."""

    def begin(self, rows: int, columns: int, like: torch.Tensor) -> None:
        self._total = columns
        self._row, self._column = _Sums(rows, like, only_lse=True), _Sums(columns, like, only_lse=True)
        self._own = like.new_zeros(())

    def add(self, rows: slice, columns: slice, logit_RC: torch.Tensor, match_RC: torch.Tensor) -> None:
        self._row.add(rows, logit_RC, match_RC)
        self._column.add(columns, logit_RC.T, match_RC.T)
        self._own += logit_RC.masked_fill(~match_RC, 0).sum()

    def finish(self) -> torch.Tensor:
        self._column.merge()
        self._row_lse, self._column_lse = (sums.peak + sums.z.log() for sums in (self._row, self._column))
        rows = _sum_over_workers(self._row_lse.sum() - 2 * self._own)
        return (rows + self._column_lse.sum()) / (2 * self._total)

    def gradient(self, rows: slice, columns: slice, logit_RC: torch.Tensor, match_RC: torch.Tensor) -> torch.Tensor:
        grad_RC = (logit_RC - self._row_lse[rows, None]).exp_()
        grad_RC += (logit_RC - self._column_lse[None, columns]).exp_()
        return grad_RC.sub_(match_RC.to(grad_RC.dtype), alpha=2).div_(2 * self._total)


class _Sigmoid:
    """Every cell of the matrix is a yes-or-no question of its own, so tiles share nothing."""

    def begin(self, rows: int, columns: int, like: torch.Tensor) -> None:
        self._total, self._loss = columns, like.new_zeros(())

    def add(self, rows: slice, columns: slice, logit_RC: torch.Tensor, match_RC: torch.Tensor) -> None:
        self._loss += functional.softplus(torch.where(match_RC, -logit_RC, logit_RC)).sum()

    def finish(self) -> torch.Tensor:
        return _sum_over_workers(self._loss) / self._total

    def gradient(self, rows: slice, columns: slice, logit_RC: torch.Tensor, match_RC: torch.Tensor) -> torch.Tensor:
        return logit_RC.sigmoid_().sub_(match_RC.to(logit_RC.dtype)).div_(self._total)


class _Sums:
    """Running sums of a softmax over candidates, for K anchors.

    peak: largest logit so far; z = sum exp(logit - peak); and, for SDM, u = sum exp(logit - peak) (logit - peak), matched_z = the part
    of z that lies on candidates of the anchor's identity, matches = how many those are.
    """

    def __init__(self, anchors: int, like: torch.Tensor, *, only_lse: bool = False) -> None:
        # Not -inf: the first rebase multiplies the shift by a sum that is zero.
        self.peak = like.new_full((anchors,), torch.finfo(like.dtype).min)
        self._sums = like.new_zeros((1 if only_lse else 4, anchors))
        self.z, *rest = self._sums
        self._only_lse = only_lse
        if rest:
            self.u, self.matched_z, self.matches = rest

    def add(self, part: slice, logit_KC: torch.Tensor, match_KC: torch.Tensor) -> None:
        """Take in candidates: `logit_KC` of the anchors `part`."""
        self._rebase(part, torch.maximum(self.peak[part], logit_KC.amax(dim=1)))
        shifted_KC = logit_KC - self.peak[part, None]
        weight_KC = shifted_KC.exp()
        self.z[part] += weight_KC.sum(dim=1)
        if not self._only_lse:
            self.u[part] += shifted_KC.mul_(weight_KC).sum(dim=1)
            self.matched_z[part] += weight_KC.mul_(match_KC).sum(dim=1)
            self.matches[part] += match_KC.sum(dim=1)

    def merge(self) -> None:
        """Add up over workers, each of which has seen other candidates of the same anchors."""
        if _world() > 1:
            peak = self.peak.clone()
            dist.all_reduce(peak, op=dist.ReduceOp.MAX)
            self._rebase(slice(None), peak)
            dist.all_reduce(self._sums)

    def _rebase(self, part: slice, peak: torch.Tensor) -> None:
        shift = self.peak[part] - peak
        decay = shift.exp()
        if not self._only_lse:
            self.u[part] = decay * (self.u[part] + self.z[part] * shift)
            self.matched_z[part] *= decay
        self.z[part] *= decay
        self.peak[part] = peak


def _tiles(rows: int, columns: int, side: int) -> Iterator[tuple[slice, slice]]:
    for row in range(0, rows, side):
        for column in range(0, columns, side):
            yield slice(row, min(row + side, rows)), slice(column, min(column + side, columns))


def _wide(values: torch.Tensor) -> torch.Tensor:
    # Half precision would lose the sums; float64 stays for those who check gradients.
    return values if values.dtype == torch.float64 else values.float()


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if _world() > 1 else 0


def _gather(values: torch.Tensor) -> torch.Tensor:
    if _world() == 1:
        return values
    whole = values.new_empty((_world() * len(values), *values.shape[1:]))
    dist.all_gather(list(whole.chunk(_world())), values.contiguous())
    return whole


def _reduce_scatter(whole: torch.Tensor) -> torch.Tensor:
    if _world() == 1:
        return whole
    own = whole.new_empty((len(whole) // _world(), *whole.shape[1:]))
    dist.reduce_scatter(own, list(whole.chunk(_world())))
    return own


def _sum_over_workers(value: torch.Tensor) -> torch.Tensor:
    if _world() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value
