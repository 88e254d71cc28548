"""Cross-attention maps of a U-Net with their gradients, kept while it runs, for the localisation loss.

diffusers' fused attention never makes the map, so the layers that are watched get a processor that does. Watched are the middle stages: the
mid block, and the cross-attention of the stage before and after it [ours; the paper says middle stages]. Knows attention layers; no loss.
"""

from __future__ import annotations

from typing import Any

import torch


class _KeepMap:
    """An attention processor that computes the map itself and keeps it: [N, heads, cells, tokens]."""

    def __init__(self) -> None:
        self.map: torch.Tensor | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        assert encoder_hidden_states is not None
        assert attention_mask is None
        query, key, value = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        query, key, value = (attn.head_to_batch_dim(each) for each in (query, key, value))
        scores = attn.get_attention_scores(query, key, None)
        self.map = scores.unflatten(0, (len(hidden_states), attn.heads))
        mixed = attn.batch_to_head_dim(torch.bmm(scores, value))
        return attn.to_out[1](attn.to_out[0](mixed)) / attn.rescale_output_factor


class AttentionWatch:
    """Keeps the maps of a U-Net's middle stages. `take` gives those of the last forward pass.

    Args:
        unet: diffusers' UNet2DConditionModel; its processors are replaced where it is watched.
    """

    def __init__(self, unet: Any) -> None:
        watched = middle_layers(unet)
        self._kept = {name: _KeepMap() for name in watched}
        unet.set_attn_processor({name: self._kept.get(name, processor) for name, processor in unet.attn_processors.items()})

    def take(self) -> list[torch.Tensor]:
        """The maps, [N, heads, cells, tokens] each, and forgets them."""
        maps = [each.map for each in self._kept.values() if each.map is not None]
        for each in self._kept.values():
            each.map = None
        return maps


def middle_layers(unet: Any) -> list[str]:
    """Names of the cross-attention processors of the mid block and of the stages next to it that attend."""
    cross = [name for name in unet.attn_processors if ".attn2." in name]
    downs = sorted({int(name.split(".")[1]) for name in cross if name.startswith("down_blocks.")})
    ups = sorted({int(name.split(".")[1]) for name in cross if name.startswith("up_blocks.")})
    near = ["mid_block.", *(f"down_blocks.{number}." for number in downs[-1:]), *(f"up_blocks.{number}." for number in ups[:1])]
    return [name for name in cross if name.startswith(tuple(near))]


def grid_of_cells(cells: int, grid: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of a stage with this many cells, of a U-Net on `grid`, whose stages halve it, rounding up.

    Raises:
        ValueError: no stage has so many.
    """
    rows, columns = grid
    while rows * columns > cells:
        rows, columns = -(-rows // 2), -(-columns // 2)
    if rows * columns != cells:
        raise ValueError(f"no stage of a U-Net on {grid[0]} x {grid[1]} cells has {cells} of them")
    return rows, columns
