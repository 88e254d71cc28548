"""Implicit relation reasoning, IRR (Jiang and Ye, CVPR 2023): masked language modelling with cross-attention to the picture.

Text tokens are the queries and image tokens the keys and values of one cross-attention layer; four transformer blocks and a small head
follow. torch's own components throughout. Knows features and token numbers; not the towers or how tokens were masked. N pairs, T text
tokens, P image tokens (class token and patches), D dimensions of the joint space.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

IGNORED = -100


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """The sigmoid form of GELU, x * sigmoid(1.702 x): the activation of OpenAI's CLIP and of IRRA's blocks."""
    return x * torch.sigmoid(1.702 * x)


class _QuickGelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quick_gelu(x)


class InteractionEncoder(nn.Module):
    """Predicts each masked token of a text from the text's other tokens and its picture.

    forward(text_NTD, image_NPD, real_NT, masked_NT) -> logits [W, vocab_size] of the W masked positions, row by row.

    Args:
        dim: D, of both towers' projected tokens.
        vocab_size: tokens to choose from.
        heads: attention heads; must divide dim (IRRA: dim / 64).
        blocks: transformer blocks after the cross-attention (IRRA: 4).
    """

    def __init__(self, dim: int, vocab_size: int, *, heads: int, blocks: int = 4) -> None:
        super().__init__()
        self.text_norm, self.image_norm, self.output_norm = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.cross_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout=0.0, activation=quick_gelu, batch_first=True, norm_first=True)
            for _ in range(blocks)
        )
        self.head = nn.Sequential(
            OrderedDict(dense=nn.Linear(dim, dim), activation=_QuickGelu(), norm=nn.LayerNorm(dim), classify=nn.Linear(dim, vocab_size))
        )
        self._initialise(dim, blocks)

    def forward(self, text_NTD: torch.Tensor, image_NPD: torch.Tensor, real_NT: torch.Tensor, masked_NT: torch.Tensor) -> torch.Tensor:
        """Logits where `masked_NT` (bool) holds; `real_NT` (bool) is False at padding, which no token attends to.

        The published code lets padding take part. Without it the result does not depend on how far a batch is padded, so another
        division of a batch over workers gives the same loss.
        """
        image_NPD = self.image_norm(image_NPD)
        states, _ = self.cross_attention(self.text_norm(text_NTD), image_NPD, image_NPD, need_weights=False)
        for block in self.blocks:
            states = block(states, src_key_padding_mask=~real_NT)
        return self.head(self.output_norm(states[masked_NT]))

    def _initialise(self, dim: int, blocks: int) -> None:
        # As the paper's release: a width-scaled normal everywhere, residual branches narrower with depth.
        residual, attention, wide = dim**-0.5 * (2 * blocks) ** -0.5, dim**-0.5, (2 * dim) ** -0.5
        for layer in self.blocks:
            nn.init.normal_(layer.self_attn.in_proj_weight, std=attention)
            nn.init.normal_(layer.self_attn.out_proj.weight, std=residual)
            nn.init.normal_(layer.linear1.weight, std=wide)
            nn.init.normal_(layer.linear2.weight, std=residual)
        nn.init.normal_(self.cross_attention.in_proj_weight, std=attention)
        nn.init.normal_(self.cross_attention.out_proj.weight, std=residual)
        nn.init.normal_(self.head.dense.weight, std=wide)
        nn.init.normal_(self.head.classify.weight, std=residual)


def irr_targets(ids_NT: torch.Tensor, chosen_NT: torch.Tensor) -> torch.Tensor:
    """What to predict: the original token where one was chosen for masking (whatever it became), IGNORED elsewhere."""
    return torch.where(chosen_NT, ids_NT, torch.full_like(ids_NT, IGNORED))


def irr_cost(logits_WV: torch.Tensor, target_NT: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the original tokens that were chosen, summed over each text: [N], float32. Zero where none was chosen.

    IRR's loss is the sum over all texts divided by the number of chosen tokens; a text's own sum can be had chunk by chunk.

    Args:
        logits_WV: of InteractionEncoder, where target_NT is not IGNORED.
        target_NT: of irr_targets.
    """
    masked_NT = target_NT != IGNORED
    cost_W = functional.cross_entropy(logits_WV.float(), target_NT[masked_NT], reduction="none")
    return cost_W.new_zeros(len(target_NT)).index_add(0, masked_NT.nonzero()[:, 0], cost_W)


def irr_loss(cost_A: torch.Tensor, count_A: torch.Tensor, *, total: torch.Tensor | None = None) -> torch.Tensor:
    """The mean over chosen tokens; zero where none was.

    Args:
        cost_A: of irr_cost.
        count_A: chosen tokens of each text.
        total: what the sum is divided by; None takes the number of chosen tokens here. On several workers, whose numbers differ,
            their mean gives the loss of the whole batch once gradients are averaged.
    """
    return cost_A.sum() / (count_A.sum() if total is None else total).clamp_min(1)
