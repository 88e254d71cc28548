"""Longer texts for a CLIP: its text tower's position embeddings stretched, as Long-CLIP does (Zhang et al., ECCV 2024).

The first 20 positions, which nearly every caption trains, are kept; the others are read at a finer step, so that 77 become 248 at a step
of a quarter. A caption of at most 20 tokens has the feature that it had. The stretched positions are a start for training on long
captions, not a model that was trained on them. Knows tables and models of reid_ray.model.dual.architectures; not tokenizers or files.
"""

from __future__ import annotations

from typing import Any

import torch

from reid_ray.errors import ConfigError
from reid_ray.model.dual.architectures import family_of

TEXT_POSITIONS = "text_model.embeddings.position_embedding.weight"
KEPT = 20


def stretch_positions(table_PD: torch.Tensor, length: int, *, kept: int = KEPT) -> torch.Tensor:
    """Position embeddings of P positions -> of `length`: the first `kept` as they are, the others interpolated linearly.

    Position p from `kept` on is read at kept + (p - kept) * (P - kept) / (length - kept). Beyond the last one the table goes on as steep
    as between its last two, as in Long-CLIP's code.

    Args:
        table_PD: [P, D], P at least kept + 2.
        length: positions wanted, at least P.
        kept: 20 in Long-CLIP.
    """
    positions = len(table_PD)
    place_L = kept + torch.arange(length - kept, dtype=torch.float64) * (positions - kept) / (length - kept)
    below_L = place_L.floor().long().clamp(max=positions - 2)
    share_L1 = (place_L - below_L).unsqueeze(1)
    exact_PD = table_PD.double()
    stretched_LD = torch.lerp(exact_PD[below_L], exact_PD[below_L + 1], share_L1)
    return torch.cat([table_PD[:kept], stretched_LD.to(table_PD.dtype)])


def with_text_length(model: Any, length: int) -> Any:
    """`model` for texts of up to `length` tokens; every weight but the text tower's positions is kept.

    Raises:
        ConfigError: it is shorter than the model's own, or the family pools the last position of a fixed length.
    """
    family, own = family_of(model), int(model.config.text_config.max_position_embeddings)
    if length == own:
        return model
    if family.pads_to_context:
        raise ConfigError(f"model.text_length {length}: a {family.model_type} is read at the last of its {own} positions; leave it null")
    if length < own or own < KEPT + 2:
        raise ConfigError(f"model.text_length {length}: the model reads {own} tokens, and at least {KEPT + 2} can be stretched, never cut")
    values = model.config.to_dict()
    values["text_config"]["max_position_embeddings"] = length
    config = family.config_class.from_dict(values)
    state = model.state_dict()
    state[TEXT_POSITIONS] = stretch_positions(state[TEXT_POSITIONS], length)
    with torch.random.fork_rng(devices=[]):
        longer = family.model_class(config)(config)
    longer.load_state_dict(state)
    return longer.eval()
