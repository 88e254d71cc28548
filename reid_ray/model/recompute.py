"""Gradient checkpointing of a transformers model: memory for time. Knows torch's rules for it; not which model, or how it is trained."""

from __future__ import annotations

from typing import Any

# torch would compare recomputed shapes with the saved ones, but ZeRO-3 frees weights, so a saved one has no shape.
DETERMINISM_CHECK = "none"


def checkpoint_layers(model: Any) -> None:
    """Keep only the input of each layer for the backward pass, and compute the layer again; goes with encoding in chunks.

    Without re-entrance gradients also reach what trains below frozen weights.

    Raises:
        ValueError: the model's class cannot (transformers says so).
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False, "determinism_check": DETERMINISM_CHECK})
