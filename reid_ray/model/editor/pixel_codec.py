"""What the U-Net's grid holds: latents of a VAE, or the pixels themselves, a patch of them in a cell (space-to-depth).

Both map pictures in [-1, 1] to a grid and back, and say how a mask and a hidden picture are laid beside the noisy grid (inpainting U-Nets
see all three). Knows tensors; not prompts, folders or training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class PatchCodec(nn.Module):
    """Pixels as they are, `patch` x `patch` of them in a cell: no VAE, so that a small editor need not learn one [ours; DP has SD's].

    Args:
        patch: pixels along a cell.
    """

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.channels, self.mask_channels = 3 * patch**2, patch**2

    @property
    def pixels(self) -> int:
        """Pixels along a cell."""
        return self.patch

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [-1, 1] -> [N, channels, H / patch, W / patch]."""
        return functional.pixel_unshuffle(pictures, self.patch)

    def decode(self, grid: torch.Tensor) -> torch.Tensor:
        """The way back, not clipped."""
        return functional.pixel_shuffle(grid, self.patch)

    def mask_grid(self, masks: torch.Tensor) -> torch.Tensor:
        """[N, 1, H, W] of 0 and 1 -> [N, mask_channels, h, w]: every pixel's own."""
        return functional.pixel_unshuffle(masks, self.patch)

    def weights(self, masks: torch.Tensor) -> torch.Tensor:
        """Which of a grid's numbers lie inside a mask: [N, channels, h, w]."""
        return functional.pixel_unshuffle(masks.expand(-1, 3, -1, -1), self.patch)


class LatentCodec(nn.Module):
    """Latents of a frozen AutoencoderKL, as Stable Diffusion has them.

    Args:
        vae: diffusers' AutoencoderKL.
    """

    mask_channels = 1

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False)
        self.channels = int(vae.config.latent_channels)

    @property
    def pixels(self) -> int:
        """Pixels along a cell."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [-1, 1] -> scaled latents; the distribution's mode, not a draw, so that a step can be repeated [ours]."""
        return self.vae.encode(pictures.to(self.vae.dtype)).latent_dist.mode() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, grid: torch.Tensor) -> torch.Tensor:
        """The way back, not clipped."""
        return self.vae.decode(grid.to(self.vae.dtype) / self.vae.config.scaling_factor).sample

    def mask_grid(self, masks: torch.Tensor) -> torch.Tensor:
        """[N, 1, H, W] -> [N, 1, h, w]; a cell is in the mask if a pixel of it is [ours; SD-Inpaint takes the nearest]."""
        return functional.max_pool2d(masks, self.pixels)

    def weights(self, masks: torch.Tensor) -> torch.Tensor:
        """Which of a grid's numbers lie inside a mask: [N, channels, h, w]."""
        return self.mask_grid(masks).expand(-1, self.channels, -1, -1)


Codec = PatchCodec | LatentCodec
