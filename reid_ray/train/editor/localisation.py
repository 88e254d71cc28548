"""The localisation loss of Diverse Person: a noun's token should be attended to where its thing is. A pure function.

mean(A outside M) - mean(A inside M), averaged over heads, stages and the attributes of a sample (Song et al., AAAI 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from reid_ray.model.editor.attention_maps import grid_of_cells


def localisation_loss(
    maps: Sequence[torch.Tensor],
    *,
    mask_NKHW: torch.Tensor,
    position_NK: torch.Tensor,
    given_NK: torch.Tensor,
    grid: tuple[int, int],
) -> torch.Tensor:
    """Per sample, float32 [N]; 0 for one without attributes.

    Args:
        maps: cross-attention [N, heads, cells, tokens] of each watched layer, each cell's tokens summing to one.
        mask_NKHW: segments of K attributes, in [0, 1]. At a stage's grid M is the share of a cell that is covered [ours], so that thin
            things do not vanish, and the means are weighted by it.
        position_NK: token of each attribute's noun.
        given_NK: which attributes there are.
        grid: (rows, columns) of the U-Net's input.
    """
    means = []
    for each in maps:
        rows, columns = grid_of_cells(each.shape[2], grid)
        inside_NKC = functional.adaptive_avg_pool2d(mask_NKHW.float(), (rows, columns)).flatten(2)
        attention_NCT = each.float().mean(dim=1)
        index_NCK = position_NK[:, None, :].expand(-1, attention_NCT.shape[1], -1)
        attention_NKC = attention_NCT.gather(2, index_NCK).transpose(1, 2)
        means.append(_mean(attention_NKC, 1 - inside_NKC) - _mean(attention_NKC, inside_NKC))
    given_NK = given_NK.float()
    loss_NK = torch.stack(means).mean(dim=0) * given_NK
    return loss_NK.sum(dim=1) / given_NK.sum(dim=1).clamp_min(1)


def _mean(value_NKC: torch.Tensor, weight_NKC: torch.Tensor) -> torch.Tensor:
    return (value_NKC * weight_NKC).sum(dim=2) / weight_NKC.sum(dim=2).clamp_min(1e-6)
