"""Denoising: DDIM over a batch, with classifier-free guidance, in the three modes. Knows the network and diffusers' scheduler; no requests.

Stock pipelines take no fused sequence with a patch codec, so the loop stands here; it is the one of diffusers' inpainting pipeline.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reid_ray.model.editor.edit_network import EditNetwork


@dataclass(frozen=True)
class Denoising:
    """Denoising steps, and guidance away from the empty prompt (1: none)."""

    steps: int
    guidance: float


def draw(
    network: EditNetwork,
    scheduler: Any,
    *,
    pictures: torch.Tensor,
    masks: torch.Tensor,
    sequence_NTD: torch.Tensor,
    empty_1TD: torch.Tensor,
    noise: torch.Tensor,
    drawing: Denoising,
) -> torch.Tensor:
    """N pictures [N, 3, H, W] in [-1, 1], roughly.

    Args:
        network: in evaluation mode.
        scheduler: diffusers' DDIMScheduler; not changed.
        pictures: [N, 3, H, W] in [-1, 1].
        masks: [N, 1, H, W] of 0 and 1; what may change.
        sequence_NTD: the fused prompts.
        empty_1TD: the empty prompt, read.
        noise: what each picture begins as, [N, channels, h, w] (noise_of).
        drawing: steps and guidance.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(drawing.steps, device=pictures.device)
    beside = network.beside(pictures, masks)
    known = network.codec.encode(pictures).to(noise.dtype) if network.mode == "blend" else None
    inside = network.codec.weights(masks) if known is not None else None
    grid = noise * scheduler.init_noise_sigma
    guided = drawing.guidance > 1
    sequence = torch.cat([sequence_NTD, empty_1TD.expand_as(sequence_NTD)]) if guided else sequence_NTD
    if guided and beside is not None:
        beside = torch.cat([beside, beside])
    for number, timestep in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(torch.cat([grid, grid]) if guided else grid, timestep)
        predicted = network.predict(seen, timestep, sequence, beside).to(grid.dtype)
        if guided:
            with_prompt, without = predicted.chunk(2)
            predicted = without + drawing.guidance * (with_prompt - without)
        grid = scheduler.step(predicted, timestep, grid).prev_sample
        if known is not None and inside is not None:
            later = scheduler.timesteps[number + 1 : number + 2]
            outside = scheduler.add_noise(known, noise, later) if len(later) else known
            grid = outside * (1 - inside) + grid * inside
    return network.codec.decode(grid)


def noise_of(seeds: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers, float32 [len(seeds), *shape]: each row a function of its seed, on any machine."""
    return torch.from_numpy(np.stack([np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in seeds]))
