"""The module that trains: an editor's network, which noises, conditions and predicts, and gives each sample's losses.

Knows tensors; not files, the engine or how losses are weighted. Nothing is drawn here: noise, noise levels and what counts come with the
batch, so that a step is the same however many workers share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from reid_ray.model.editor.attention_maps import AttentionWatch
from reid_ray.model.editor.edit_network import EditConditions, EditNetwork
from reid_ray.train.editor.config import EditorPart
from reid_ray.train.editor.edit_samples import UNKNOWN
from reid_ray.train.editor.localisation import localisation_loss


class ValueHeads(nn.Module):
    """Linear layers that read values from an attribute token before and after fusion.

    Args:
        values: attribute -> how many values it has.
        widths: of the token before and after.
    """

    def __init__(self, values: Mapping[str, int], widths: Sequence[int]) -> None:
        super().__init__()
        self.readers = nn.ModuleList([nn.ModuleList([nn.Linear(width, count) for count in values.values()]) for width in widths])

    def forward(self, tokens: Sequence[torch.Tensor], value_NKA: torch.Tensor) -> torch.Tensor:
        """Cross-entropy per sample, mean over what is known of its references; [N]."""
        known_NKA = (value_NKA != UNKNOWN).float()
        cost_N = torch.zeros(len(value_NKA), device=value_NKA.device)
        for token_NKD, readers in zip(tokens, self.readers, strict=True):
            for attribute, reader in enumerate(readers):
                value_NK = value_NKA[..., attribute]
                logits = reader(token_NKD).float().flatten(0, 1)
                cost_N = cost_N + functional.cross_entropy(logits, value_NK.flatten(), ignore_index=UNKNOWN, reduction="none").unflatten(
                    0, value_NK.shape
                ).sum(dim=1)
        return cost_N / (len(tokens) * known_NKA.sum(dim=(1, 2))).clamp_min(1)


class EditorTraining(nn.Module):
    """forward(batch) -> {"denoising": [N], "localisation": [N], "attribute": [N]}, float32, as far as they are asked for.

    Args:
        network: the editor.
        scheduler: diffusers'; its noise schedule and what the U-Net predicts.
        trains: parts that train.
        localised: whether attention is watched.
        values: attribute -> number of values to be read from references; {} reads none.
    """

    def __init__(
        self, network: EditNetwork, scheduler: Any, *, trains: Sequence[EditorPart], localised: bool, values: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.network, self._scheduler = network, scheduler
        network.requires_grad_(False)
        for part in trains:
            getattr(network, part).requires_grad_(True)
        self._watch = AttentionWatch(network.unet) if localised else None
        widths = [network.attribute_encoder.config.projection_dim, network.text_encoder.config.hidden_size]
        self.heads = ValueHeads(values, widths) if values else None

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Tensors of edit_feed.EditFeed."""
        conditions = EditConditions(*(batch[name] for name in ("tokens", "crops", "positions", "given")))
        sequence_NTD, features = self._conditioned(conditions, batch)
        codec = self.network.codec
        pictures, masks = batch["pictures"], batch["masks"]
        grid, noise = codec.encode(pictures).float(), batch["noise"]
        noisy = self._scheduler.add_noise(grid, noise, batch["timesteps"])
        predicted = self.network.predict(noisy, batch["timesteps"], sequence_NTD, self.network.beside(pictures, masks)).float()
        error = (predicted - self._wanted(grid, noise, batch["timesteps"])) ** 2
        inside = codec.weights(masks)
        weight = torch.where(batch["inside"][:, None, None, None], inside, torch.ones_like(inside))
        features["denoising"] = (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
        if self._watch is not None:
            kept = conditions.given_NK & ~batch["dropped"][:, None]
            size = (int(grid.shape[2]), int(grid.shape[3]))
            features["localisation"] = localisation_loss(
                self._watch.take(), mask_NKHW=batch["segments"], position_NK=conditions.position_NK, given_NK=kept, grid=size
            )
        return features

    def _conditioned(self, given: EditConditions, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The sequence that the U-Net sees, the empty prompt where it is dropped; and what is read from the tokens."""
        network = self.network
        text_NTD = network.read_prompt(given.token_NT)
        attribute_NKE = network.read_references(given.crop_NK, given.given_NK).to(text_NTD.dtype)
        sequence_NTD = network.fusion(text_NTD, attribute_NKE, given.position_NK, given.given_NK)
        empty_1TD = network.read_prompt(batch["empty"][:1])
        features = {}
        if self.heads is not None:
            width = text_NTD.shape[-1]
            fused_NKD = sequence_NTD.gather(1, given.position_NK[..., None].expand(-1, -1, width))
            features["attribute"] = self.heads([attribute_NKE, fused_NKD], batch["values"])
        return torch.where(batch["dropped"][:, None, None], empty_1TD.to(sequence_NTD.dtype), sequence_NTD), features

    def _wanted(self, grid: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the U-Net should predict, by the schedule."""
        kind = self._scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        return self._scheduler.get_velocity(grid, noise, timesteps) if kind == "v_prediction" else grid
