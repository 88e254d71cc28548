"""Forward pass of a multimodal LLM: pictures -> visual features and projected tokens -> hidden states -> language-model loss of answers.

A small interface over transformers' own classes, used as they are: `encode_pictures` runs visual encoder and projector once,
`hidden_states` runs the language model over tokens, with or without image tokens, `answer_cost` scores answers. Knows tensors; not chat,
people or DeepSpeed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reid_ray.model.mllm.families import MllmFamily, family_of

IGNORED = -100  # label that the loss skips (cross_entropy's ignore_index)
PICTURE_INPUTS = ("pixel_values", "image_grid_thw")


@dataclass(frozen=True)
class VisualFeatures:
    """Visual encoder and projector output for A pictures, each with its own number of image tokens.

    visual_AV: the visual encoder's own feature, pooled, [A, V].
    token_list: projected image tokens of each picture, [N_a, D], as they enter the language model.
    output: transformers' output, which `hidden_states` hands back to the model.
    grid: rows and columns of patches of each picture (Qwen), [A, 3] with the time axis first; None where the model has none.
    """

    visual_AV: torch.Tensor
    output: Any
    grid: torch.Tensor | None

    @property
    def token_list(self) -> list[torch.Tensor]:
        """The projected image tokens of each picture."""
        return list(self.output.pooler_output)


class Mllm(nn.Module):
    """One multimodal LLM.

    Args:
        model: LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration; adapters may sit in it.
        origin: names the model in errors.
    """

    def __init__(self, model: Any, *, origin: str = "model") -> None:
        super().__init__()
        self.model = model
        self.family: MllmFamily = family_of(model.config, origin=origin)

    @property
    def image_token(self) -> int:
        """Token id that stands for a piece of a picture."""
        return int(self.model.config.image_token_id)

    @property
    def hidden_dim(self) -> int:
        """D, the language model's width."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def visual_dim(self) -> int:
        """V, the visual encoder's width."""
        return int(self.model.config.vision_config.hidden_size)

    @property
    def context(self) -> int:
        """Tokens the language model can read."""
        return int(self.model.config.text_config.max_position_embeddings)

    def encode_pictures(self, pictures: dict[str, torch.Tensor]) -> VisualFeatures:
        """Run the visual encoder and the projector once.

        Args:
            pictures: PICTURE_INPUTS as the processor made them.
        """
        given = {name: pictures[name] for name in PICTURE_INPUTS if name in pictures}
        visual = self.family.part(self.model, self.family.visual)
        given["pixel_values"] = given["pixel_values"].to(visual.dtype)
        output = self.model.model.get_image_features(**given, return_dict=True)
        return VisualFeatures(self.family.feature(visual, output, given), output, given.get("image_grid_thw"))

    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, visual_features: VisualFeatures | None = None
    ) -> torch.Tensor:
        """The language model's last hidden states [A, T, D], after its final norm.

        Args:
            input_ids: [A, T], padded on the right.
            attention_mask: [A, T], 1 where there is a token.
            visual_features: of the pictures whose image tokens stand in input_ids, in their order; None for text alone.
        """
        vision_arguments: dict[str, Any] = {}
        if visual_features is not None:
            vision_arguments["mm_encoder_outputs"] = {"image": visual_features.output}
            if visual_features.grid is not None:
                vision_arguments |= {"image_grid_thw": visual_features.grid, "mm_token_type_ids": (input_ids == self.image_token).int()}
        output = self.model.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **vision_arguments)
        return output.last_hidden_state  # type: ignore[no-any-return]

    def answer_cost(self, hidden_ATD: torch.Tensor, label_AT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-log p of each row's labelled tokens, summed [A] (float32), and how many they are [A].

        Logits are computed at labelled positions alone: with a vocabulary of 150,000 they would else outweigh everything.

        Args:
            hidden_ATD: what `hidden_states` gave.
            label_AT: the token that stands at each position where it is to be predicted, else IGNORED.
        """
        target_AT = label_AT[:, 1:]
        labelled_AT = target_AT != IGNORED
        logits = self.model.get_output_embeddings()(hidden_ATD[:, :-1][labelled_AT]).float()
        cost = nn.functional.cross_entropy(logits, target_AT[labelled_AT], reduction="none")
        row = labelled_AT.nonzero()[:, 0]
        cost_A = torch.zeros(len(label_AT), dtype=cost.dtype, device=cost.device).index_add(0, row, cost)
        return cost_A, labelled_AT.sum(dim=1)


def pool(hidden_ATD: torch.Tensor, mask_AT: torch.Tensor, *, how: str, query_D: torch.Tensor | None = None) -> torch.Tensor:
    """Pool hidden states where `mask_AT` holds: one vector per row, [A, D] in float32.

    Args:
        hidden_ATD: hidden states, [A, T, D].
        mask_AT: which positions count; each row has at least one.
        how: mean; last (the last such position); attention (weights softmax(h . query / sqrt(D))).
        query_D: with attention, what is asked for.
    """
    hidden_ATD = hidden_ATD.float()
    if how == "last":
        position_T = torch.arange(mask_AT.shape[1], device=mask_AT.device)
        last_A = (position_T * mask_AT).argmax(dim=1)
        return hidden_ATD[torch.arange(len(last_A), device=last_A.device), last_A]
    if how == "mean":
        weight_AT = mask_AT / mask_AT.sum(dim=1, keepdim=True)
    else:
        assert query_D is not None, how
        score_AT = hidden_ATD @ query_D.float() / hidden_ATD.shape[-1] ** 0.5
        weight_AT = score_AT.masked_fill(~mask_AT.bool(), float("-inf")).softmax(dim=1)
    return torch.einsum("at,atd->ad", weight_AT.float(), hidden_ATD)
