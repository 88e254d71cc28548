"""Attribute-fused conditioning of Diverse Person: a reference crop becomes one token, fused into the prompt's token of its noun.

At the noun's position: concat(text, attribute) -> MLP -> + text -> MLP with a residual -> LayerNorm (Song et al., AAAI 2024, code). Knows
embeddings and positions; not tokenizers, pictures or the U-Net.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class _Mlp(nn.Module):
    """LayerNorm, two linear layers with GELU between them; `residual` adds what came in."""

    def __init__(self, inner: int, outer: int, *, residual: bool) -> None:
        super().__init__()
        self.norm, self.expand, self.shrink = nn.LayerNorm(inner), nn.Linear(inner, outer), nn.Linear(outer, outer)
        self._residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.shrink(functional.gelu(self.expand(self.norm(x))))
        return y + x if self._residual else y


class AttributeFusion(nn.Module):
    """Fuses attribute tokens into the prompt's.

    Args:
        width: of the text encoder's tokens, D.
        attribute_width: of the image encoder's; where it is another, a linear layer comes first [ours; both are 768 in DP].
    """

    def __init__(self, width: int, attribute_width: int) -> None:
        super().__init__()
        self.project = nn.Identity() if width == attribute_width else nn.Linear(attribute_width, width)
        self.join = _Mlp(2 * width, width, residual=False)
        self.refine = _Mlp(width, width, residual=True)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, text_NTD: torch.Tensor, attribute_NKE: torch.Tensor, position_NK: torch.Tensor, given_NK: torch.Tensor
    ) -> torch.Tensor:
        """The prompt with its nouns' tokens fused, [N, T, D].

        Args:
            text_NTD: the text encoder's last hidden state.
            attribute_NKE: the image encoder's token of each reference.
            position_NK: where its noun's token lies, int64.
            given_NK: whether there is such a reference; those of one prompt have different positions.
        """
        hot_NKT = functional.one_hot(position_NK, text_NTD.shape[1]).to(text_NTD.dtype) * given_NK[..., None].to(text_NTD.dtype)
        fused_NKD = self.fuse(hot_NKT @ text_NTD, attribute_NKE)
        kept_NT1 = 1 - hot_NKT.sum(dim=1)[..., None]
        return text_NTD * kept_NT1 + hot_NKT.transpose(1, 2) @ fused_NKD

    def fuse(self, text_NKD: torch.Tensor, attribute_NKE: torch.Tensor) -> torch.Tensor:
        """Tokens of nouns and of their references -> fused tokens [N, K, D]."""
        joined_NKD = self.join(torch.cat([text_NKD, self.project(attribute_NKE)], dim=-1)) + text_NKD
        return self.norm(self.refine(joined_NKD))
