"""The module that trains: a dual encoder's two towers with the losses' own parameters, batch -> features, and back to a DualEncoder.

Knows the dual encoder and the parameters that losses bring; not the losses, data or DeepSpeed. Another model trains in the same loop by
bringing its own such module.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from reid_ray.model.dual.dual_encoder import DualEncoder, tokenise
from reid_ray.model.dual.preprocess import ImageTransform
from reid_ray.model.dual.token_features import image_pass, layer_at, patch_features, token_features
from reid_ray.train.dual.grad_cache import Tensors, in_chunks
from reid_ray.train.losses.config import ObjectiveConfig
from reid_ray.train.losses.irr import IGNORED, InteractionEncoder, irr_cost
from reid_ray.train.losses.logit_scale import LogitScale
from reid_ray.train.masking.noise_aware import noise_levels

# Names of the sigmoid loss's parameters in the module's state, and of InfoNCE's.
SCALE, BIAS = "heads.sigmoid.log_scale", "heads.sigmoid.bias"
SHIFT = "scale.shift"


class PairCollate:
    """Pictures and texts -> the inputs of TwoTowers: {"pixel_values": [A, 3, H, W], "input_ids": [A, T]}.

    Args:
        transform: the model's image preprocessing; the pictures come in its size.
        tokenizer: the model's.
        context: tokens per text at most.
    """

    def __init__(self, transform: ImageTransform, tokenizer: Any, *, context: int) -> None:
        self._transform, self._tokenizer, self._context = transform, tokenizer, context

    def __call__(self, pictures: list[np.ndarray], texts: list[str]) -> dict[str, torch.Tensor]:
        """The inputs of a batch; pictures are uint8 [H, W, 3]."""
        return {
            "pixel_values": torch.from_numpy(self._transform.normalise(np.stack(pictures))),
            "input_ids": tokenise(self._tokenizer, texts, context=self._context),
        }


class LossHeads(nn.Module):
    """Trainable parameters of the losses: identity classifier (ID), masked-token predictor (IRR), scale and bias (sigmoid loss).

    Args:
        config: terms of weight zero bring nothing.
        dim: dimensions of the joint space.
        persons: training identities.
        vocab_size: of the tokenizer.
        sigmoid_start: (log scale, bias) that the sigmoid loss goes on from; None starts as SigLIP did.
    """

    def __init__(
        self, config: ObjectiveConfig, *, dim: int, persons: int, vocab_size: int, sigmoid_start: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        self.classify = nn.Linear(dim, persons) if config.id.weight else None
        self.interaction = (
            InteractionEncoder(dim, vocab_size, heads=config.irr.heads, blocks=config.irr.blocks) if config.irr.weight else None
        )
        self.sigmoid = _ScaleAndBias(sigmoid_start) if config.sigmoid.weight else None
        if self.classify is not None:  # as in IRRA
            nn.init.normal_(self.classify.weight, std=0.001)
            nn.init.zeros_(self.classify.bias)


class TwoTowers(nn.Module):
    """The two towers of a dual encoder. forward(batch) -> {"image": [A, D], "text": [A, D]}, unit vectors in float32, and:

    "noise" [A, T], levels of the tokens of full_ids, if those are given; "image_identity" and "text_identity" [A, K], "irr_cost" and
    "irr_count" [A], "sigmoid" [2] (log scale, bias), as far as there are heads for them and both modalities are given; "log_scale" [1] if
    it is learnt.

    The model's own logit scale and bias are set aside, for DeepSpeed cannot hold a parameter without dimensions: `scale` and the sigmoid
    loss's head learn in their place, other losses have temperatures of their own.

    Args:
        encoder: its weights are trained in place.
        heads: what the losses bring; None if they bring nothing.
        chunk: samples whose activations are alive at a time (GradCache); None keeps those of all.
        depth: share of each tower's layers after which noise levels are taken.
        scale: the logit scale of InfoNCE, if it is learnt.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        heads: LossHeads | None = None,
        *,
        chunk: int | None = None,
        depth: float = 1.0,
        scale: LogitScale | None = None,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.model, self._family = encoder.model, encoder.family
        self.heads = heads
        self._shell = [encoder]  # in a list, so that the encoder's module is not registered twice
        self._chunk = chunk
        config = encoder.model.config
        self._image_layer = layer_at(depth, config.vision_config.num_hidden_layers)
        self._text_layer = layer_at(depth, config.text_config.num_hidden_layers)
        self._end_id = encoder.tokenizer.eos_token_id  # published configurations name another than their tokenizer
        for name in self._family.logits(temperature=1.0, learnt=None):
            delattr(self.model, name)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        masked_ids: torch.Tensor | None = None,
        full_ids: torch.Tensor | None = None,
        irr_targets: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Features of pictures [A, 3, H, W], of texts [A, T], or of both.

        Args:
            pixel_values: of the pictures.
            input_ids: the texts that global features are of.
            masked_ids: the texts whose masked words are predicted, if they are others than input_ids.
            full_ids: the texts before masking, which noise levels are of.
            irr_targets: what is to be predicted, [A, T].
        """
        texts = {"input_ids": input_ids, "masked_ids": masked_ids, "full_ids": full_ids, "irr_targets": irr_targets}
        given = {name: value for name, value in {"pixel_values": pixel_values, **texts}.items() if value is not None}
        features = in_chunks(self._encode, given, size=self._chunk)
        if self.heads is not None and self.heads.sigmoid is not None:
            features["sigmoid"] = self.heads.sigmoid()
        if self.scale is not None:
            features["log_scale"] = self.scale()
        return features

    def encoder_with(self, state: dict[str, torch.Tensor], *, temperature: float) -> DualEncoder:
        """A new DualEncoder with the weights `state` of this module (float32, on CPU).

        Its logit scale is what was learnt: by InfoNCE, or by the sigmoid loss where the model has a scale and bias of its own for it; else
        1 / temperature.
        """
        shell = self._shell[0]
        model = type(shell.model)(shell.model.config)
        weights = {name.removeprefix("model."): weight for name, weight in state.items() if name.startswith("model.")}
        learnt = (state[SCALE].item(), state[BIAS].item()) if SCALE in state else None
        if self.scale is not None:
            temperature = math.exp(-self.scale.value(state[SHIFT]))
        model.load_state_dict({**weights, **self._family.logits(temperature=temperature, learnt=learnt)})
        return DualEncoder(model, shell.tokenizer, shell.transform)

    def _encode(self, batch: Tensors) -> dict[str, torch.Tensor]:
        outputs, hidden = {}, None
        if "full_ids" in batch:
            outputs["image"], hidden = image_pass(self.model, batch["pixel_values"], layer=self._image_layer)
        elif "pixel_values" in batch:
            outputs["image"] = self.model.get_image_features(pixel_values=batch["pixel_values"])
        if "input_ids" in batch:
            outputs["text"] = self.model.get_text_features(input_ids=batch["input_ids"])
        features = {name: nn.functional.normalize(output.pooler_output.float(), dim=-1) for name, output in outputs.items()}
        if self.heads is not None and len(outputs) == 2:
            features |= self._answers(outputs, batch)
        if hidden is not None:
            # Last, and without gradient: encoding in chunks then does not repeat it.
            tokens = token_features(self.model, batch["full_ids"], layer=self._text_layer)
            features["noise"] = noise_levels(patch_features(self.model, hidden), tokens)
        return features

    def _answers(self, outputs: dict[str, Any], batch: Tensors) -> dict[str, torch.Tensor]:
        """What the heads make of both modalities."""
        assert self.heads is not None
        answers = {}
        if self.heads.classify is not None:
            answers = {f"{name}_identity": self.heads.classify(output.pooler_output) for name, output in outputs.items()}
        if self.heads.interaction is not None and "irr_targets" in batch:
            patches = self._family.project_image_output(self.model, outputs["image"].last_hidden_state)
            masked_AT = batch.get("masked_ids", batch["input_ids"])
            masked = self.model.get_text_features(input_ids=masked_AT) if "masked_ids" in batch else outputs["text"]
            tokens = self._family.project_tokens(self.model, masked.last_hidden_state)
            end_AT = (masked_AT == self._end_id).long()
            wanted_AT = batch["irr_targets"] != IGNORED
            logits = self.heads.interaction(tokens, patches, end_AT.cumsum(dim=1) - end_AT == 0, wanted_AT)
            answers["irr_cost"], answers["irr_count"] = irr_cost(logits, batch["irr_targets"]), wanted_AT.sum(dim=1)
        return answers


class _ScaleAndBias(nn.Module):
    """The sigmoid loss's own parameters, as SigLIP starts them or as it left them. forward() -> [log scale, bias]."""

    def __init__(self, start: tuple[float, float] | None) -> None:
        super().__init__()
        log_scale, bias = start or (math.log(10.0), -10.0)
        self.log_scale, self.bias = nn.Parameter(torch.tensor([log_scale])), nn.Parameter(torch.tensor([bias]))

    def forward(self) -> torch.Tensor:
        return torch.cat([self.log_scale, self.bias]).float()
