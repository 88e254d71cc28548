"""What is trained: a CLIP model as a module that turns a batch into features, and back into a DualEncoder when it is saved.

Knows the dual encoder; not losses, data or DeepSpeed. Another model trains in the same loop by bringing its own such module.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from reid_ray.model.dual_encoder import DualEncoder


class TwoTowers(nn.Module):
    """The two towers of a dual encoder. forward(batch) -> {"image": [A, D], "text": [A, D]}, unit vectors in float32.

    CLIP's learnt logit scale is set aside: the losses have temperatures of their own, and DeepSpeed cannot hold a parameter without
    dimensions.
    """

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.clip = encoder.clip
        self._shell = [encoder]  # in a list, so that the encoder's module is not registered twice
        del self.clip.logit_scale

    def forward(self, pixel_values: torch.Tensor | None = None, input_ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Features of pictures [A, 3, H, W], of texts [A, T], or of both."""
        features = {}
        if pixel_values is not None:
            features["image"] = self.clip.get_image_features(pixel_values=pixel_values).pooler_output
        if input_ids is not None:
            features["text"] = self.clip.get_text_features(input_ids=input_ids).pooler_output
        return {name: nn.functional.normalize(value.float(), dim=-1) for name, value in features.items()}

    def encoder_with(self, state: dict[str, torch.Tensor], *, temperature: float) -> DualEncoder:
        """A new DualEncoder with the weights `state` of this module (float32, on CPU) and logit scale 1 / temperature."""
        shell = self._shell[0]
        config: Any = shell.clip.config
        clip = type(shell.clip)(config)
        weights = {name.removeprefix("clip."): weight for name, weight in state.items()}
        clip.load_state_dict({**weights, "logit_scale": torch.tensor(math.log(1 / temperature))})
        return DualEncoder(clip, shell.tokenizer, shell.transform)
