"""The module that trains (MLLMReID, SyncReID): a multimodal LLM with its ReID heads, batch -> features and language-model losses.

One pass over images gives the visual feature, the latent feature and the answers' costs; one over captions the text latents and theirs.
Which passes are made is fixed by the objective, so all workers run the same modules, as ZeRO-3 needs. Knows the model and the heads;
not losses, data or DeepSpeed.
"""

from __future__ import annotations

import torch
from torch import nn

from reid_ray.model.mllm.forward import PICTURE_INPUTS, Mllm
from reid_ray.model.mllm.inputs import Turns
from reid_ray.model.mllm.reid_heads import Gather, ReidHeads
from reid_ray.train.mllm.config import TuneObjective

IMAGE, CAPTION = "image", "caption"


class SyncReid(nn.Module):
    """forward(batch) -> a dict of float32 tensors, as far as the objective wants them.

    "image" [A, D], "visual" [A, V], "text" [A, D]: unit vectors of latent image, visual feature and latent caption; "latent_identity" and
    "visual_identity" [A, K]; "image_cost", "image_count", "caption_cost", "caption_count" [A]: -log p of an answer, summed, and its tokens.

    Args:
        mllm: the model.
        objective: which passes are made.
        persons: identities.
        gather: own rows -> those of all workers, with gradient, and where the own ones start.
    """

    def __init__(self, mllm: Mllm, objective: TuneObjective, *, persons: int, gather: Gather) -> None:
        super().__init__()
        self.mllm = mllm
        dims = {
            name: dim
            for name, dim, term in (
                ("latent", mllm.hidden_dim, objective.latent_id),
                ("visual", mllm.visual_dim, objective.visual_id),
            )
            if term.weight
        }
        self.heads = ReidHeads(objective.pooling, hidden_dim=mllm.hidden_dim, identity_dims=dims, persons=persons)
        self._objective, self._gather = objective, gather

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Tensors of `inputs_of`; image alone (without captions) is enough for validation."""
        features: dict[str, torch.Tensor] = {}
        if "pixel_values" in batch:
            features |= self._images(batch)
        if "caption_ids" in batch:
            features |= self._captions(batch)
        return features

    def _images(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        visual_features = self.mllm.encode_pictures({name: batch[name] for name in PICTURE_INPUTS if name in batch})
        visual = visual_features.visual_AV.float()
        features = {"visual": _unit(visual), **self._identity("visual", visual)}
        if not self._objective.reads_images:
            return features
        hidden = self.mllm.hidden_states(batch["image_ids"], batch["image_mask"], visual_features)
        latent = self.heads.pool(hidden, batch["image_shown"])
        features |= {"image": _unit(latent), **self._identity("latent", latent)}
        if self._objective.lm_image.weight and self.training:
            features["image_cost"], features["image_count"] = self.mllm.answer_cost(hidden, batch["image_labels"])
        return features

    def _captions(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        hidden = self.mllm.hidden_states(batch["caption_ids"], batch["caption_mask"])
        features = {}
        if self._objective.sdm.weight:
            features["text"] = _unit(self.heads.pool(hidden, batch["caption_shown"]))
        if self._objective.lm_caption.weight and self.training:
            features["caption_cost"], features["caption_count"] = self.mllm.answer_cost(hidden, batch["caption_labels"])
        return features

    def _identity(self, name: str, feature: torch.Tensor) -> dict[str, torch.Tensor]:
        if name not in self.heads.identity or not self.training:
            return {}
        return {f"{name}_identity": self.heads.identity[name](feature, self._gather)}


def inputs_of(turns: Turns, side: str) -> dict[str, torch.Tensor]:
    """Turns as arguments of SyncReid.forward; `side` is IMAGE or CAPTION."""
    named = {"ids": turns.input_ids, "mask": turns.attention_mask, "shown": turns.shown, "labels": turns.labels}
    return {**turns.pictures, **{f"{side}_{name}": value for name, value in named.items()}}


def _unit(feature: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(feature.float(), dim=-1)
