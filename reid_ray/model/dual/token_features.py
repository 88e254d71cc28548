"""Patch and token features in the joint space (as NAM compares them), after layer l of a dual encoder's towers.

The pictures' come from the same forward pass that trains; the texts' from a run of the first l layers without gradient, because the
pass that trains sees masked text. Both go through their tower's final norm and projection (for SigLIP: siglip.py).
Knows models of reid_ray.model.dual.architectures; not losses or masking. N samples, T tokens, P positions (class tokens, then M patches), D
dimensions of the joint space.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from reid_ray.model.dual.architectures import family_of


def layer_at(depth: float, layers: int) -> int:
    """The layer (from 1 to `layers`) nearest to a share of a tower's depth: 10 of 12 is 0.83, so 20 of 24."""
    return min(layers, max(1, round(depth * layers)))


def image_pass(model: Any, pixel_values: torch.Tensor, *, layer: int) -> tuple[Any, torch.Tensor]:
    """One forward pass of pictures.

    Returns:
        What get_image_features gives, and the output of layer `layer` (1 is the first), [N, P, width], detached.
    """
    output = model.get_image_features(pixel_values=pixel_values, output_hidden_states=[layer - 1])
    return output, output.hidden_states[layer - 1].detach()


@torch.no_grad()
def patch_features(model: Any, hidden_NPW: torch.Tensor) -> torch.Tensor:
    """Unit vectors [N, M, D], float32, of the patches in a layer's output; class tokens are dropped."""
    family = family_of(model)
    projected = family.project_patches(model, hidden_NPW[:, family.class_tokens :])
    return functional.normalize(projected.float(), dim=-1)


@torch.no_grad()
def token_features(model: Any, input_ids: torch.Tensor, *, layer: int) -> torch.Tensor:
    """Unit vectors [N, T, D], float32, of every position of the texts after layer `layer`; no later layer runs."""
    states = _first_layers(model.text_model, layer)(input_ids=input_ids).last_hidden_state
    return functional.normalize(family_of(model).project_tokens(model, states).float(), dim=-1)


def _first_layers(tower: nn.Module, layers: int) -> nn.Module:
    """The tower with its first `layers` layers and its final norm. Every weight is the tower's own: nothing is copied."""
    short = _view(tower)
    short.encoder = _view(tower.encoder)
    short.encoder.layers = tower.encoder.layers[:layers]
    return short


def _view(module: nn.Module) -> nn.Module:
    # A shallow copy shares the table of submodules with the original; with a table of its own they can be exchanged.
    view = copy.copy(module)
    view.__dict__["_modules"] = dict(module._modules)
    return view
