"""The network of an editor: prompt and references -> conditioning, noisy grid -> prediction, of transformers' and diffusers' classes.

Modes: `inpaint`, the U-Net sees the noisy grid, the mask and the picture without what the mask hides (9 channels with SD's VAE); `blend`,
it sees the noisy grid alone, and what the mask does not cover is put back at every step; `generate`, it sees noise, never the source. DP's
release generates; that the source is inpainted is our reading, since an edited person stands where the source stood. Knows tensors; not
folders, schedules, requests or training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from reid_ray.model.editor.attribute_fusion import AttributeFusion
from reid_ray.model.editor.pixel_codec import Codec

Mode = Literal["inpaint", "blend", "generate"]


@dataclass(frozen=True)
class EditConditions:
    """What N edits are conditioned on; K references each, of which `given` are there.

    token_NT: the prompt's tokens, int64.
    crop_NK: references as the attribute encoder takes them, float32 [N, K, 3, s, s].
    position_NK: the token of each one's noun, int64.
    given_NK: bool.
    """

    token_NT: torch.Tensor
    crop_NK: torch.Tensor
    position_NK: torch.Tensor
    given_NK: torch.Tensor

    def to(self, device: torch.device | str) -> EditConditions:
        """The same on a device."""
        return EditConditions(*(each.to(device) for each in (self.token_NT, self.crop_NK, self.position_NK, self.given_NK)))


class EditNetwork(nn.Module):
    """Text encoder, attribute encoder, fusion, U-Net and codec.

    Args:
        text_encoder: transformers' CLIPTextModel.
        attribute_encoder: transformers' CLIPVisionModelWithProjection.
        fusion: of their widths.
        unet: diffusers' UNet2DConditionModel with the channels of `mode`.
        codec: what its grid holds.
        mode: see above.
    """

    def __init__(self, text_encoder: Any, attribute_encoder: Any, fusion: AttributeFusion, unet: Any, codec: Codec, *, mode: Mode) -> None:
        super().__init__()
        self.text_encoder, self.attribute_encoder, self.fusion = text_encoder, attribute_encoder, fusion
        self.unet, self.codec, self.mode = unet, codec, mode
        needed = in_channels(codec, mode)
        if unet.config.in_channels != needed:
            raise ValueError(f"the U-Net has {unet.config.in_channels} input channels, but {mode} needs {needed}")

    def read_prompt(self, token_NT: torch.Tensor) -> torch.Tensor:
        """The text encoder's last hidden state, [N, T, D]."""
        return self.text_encoder(input_ids=token_NT).last_hidden_state

    def read_references(self, crop_NK: torch.Tensor, given_NK: torch.Tensor) -> torch.Tensor:
        """The attribute encoder's projected token of each reference, [N, K, E]; zeros where none is given."""
        rows = given_NK.flatten().nonzero().flatten()
        if not len(rows):  # the encoder takes part in every pass, or a worker without references would lack its gradients
            rows = rows.new_zeros(1)
        tokens = self.attribute_encoder(pixel_values=crop_NK.flatten(0, 1)[rows].to(self.attribute_encoder.dtype)).image_embeds
        read = tokens.new_zeros(given_NK.numel(), tokens.shape[-1]).index_copy(0, rows, tokens)
        return read.unflatten(0, given_NK.shape)

    def condition(self, given: EditConditions) -> torch.Tensor:
        """The fused sequence, [N, T, D]."""
        text_NTD = self.read_prompt(given.token_NT)
        attribute_NKE = self.read_references(given.crop_NK, given.given_NK)
        return self.fusion(text_NTD, attribute_NKE.to(text_NTD.dtype), given.position_NK, given.given_NK)

    def beside(self, pictures: torch.Tensor, masks: torch.Tensor) -> torch.Tensor | None:
        """What the U-Net sees beside the noisy grid: the mask, and the picture without what it hides; None unless it inpaints.

        In SD-Inpaint's order. What is hidden is mid-grey, 0.

        Args:
            pictures: [N, 3, H, W] in [-1, 1].
            masks: [N, 1, H, W] of 0 and 1.
        """
        if self.mode != "inpaint":
            return None
        return torch.cat([self.codec.mask_grid(masks), self.codec.encode(pictures * (1 - masks)).to(masks.dtype)], dim=1)

    def predict(self, noisy: torch.Tensor, timestep: torch.Tensor, sequence_NTD: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
        """The U-Net's prediction, in the scheduler's terms, [N, channels, h, w]."""
        seen = noisy if beside is None else torch.cat([noisy, beside], dim=1)
        return self.unet(seen.to(self.unet.dtype), timestep, sequence_NTD.to(self.unet.dtype)).sample


def in_channels(codec: Codec, mode: Mode) -> int:
    """Input channels that a U-Net needs."""
    return 2 * codec.channels + codec.mask_channels if mode == "inpaint" else codec.channels
