"""CLIP as a dual encoder: transformers' CLIPModel, for pictures of any size, and where its pooling and projections are.

Knows transformers' CLIP classes; not training, tokens or files.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from reid_ray.model.dual.config import ScratchConfig
from reid_ray.model.dual.grid import AnyGrid, AnyGridModel, grid_fields, needs_any_grid


class AnyGridVisionEmbeddings(AnyGrid, CLIPVisionEmbeddings):
    """CLIP's class token, patches and positions, for any grid."""

    class_tokens = 1


class AnyGridCLIPModel(AnyGridModel, CLIPModel):
    """CLIPModel whose vision_config may carry image_height, image_width and patch_stride beside image_size."""

    embeddings_class = AnyGridVisionEmbeddings


class ClipFamily:
    """Family of CLIP: a class token and the first end mark are pooled, then projected by a matrix each."""

    model_type = "clip"
    config_class = CLIPConfig
    class_tokens = 1
    pads_to_context = False
    pooling = ("class token", "first end mark")

    def model_class(self, config: CLIPConfig) -> type[CLIPModel]:
        """AnyGridCLIPModel where the configuration asks for it, else plain CLIPModel."""
        return AnyGridCLIPModel if needs_any_grid(config.vision_config) else CLIPModel

    def dim(self, config: CLIPConfig) -> int:
        """Dimensions of the joint space."""
        return int(config.projection_dim)

    def project_patches(self, model: CLIPModel, hidden_NPW: torch.Tensor) -> torch.Tensor:
        """A vision layer's output -> the joint space [N, P, D]: final norm, then the visual projection."""
        return model.visual_projection(model.vision_model.post_layernorm(hidden_NPW))

    def project_image_output(self, model: CLIPModel, last_NPW: torch.Tensor) -> torch.Tensor:
        """The vision tower's last_hidden_state, which CLIP leaves without its final norm, -> [N, P, D]."""
        return self.project_patches(model, last_NPW)

    def project_tokens(self, model: CLIPModel, last_NTW: torch.Tensor) -> torch.Tensor:
        """The text tower's last_hidden_state, normed already, -> [N, T, D]."""
        return model.text_projection(last_NTW)

    def scale_and_bias(self, model: CLIPModel) -> tuple[float, float] | None:
        """CLIP has no sigmoid loss of its own."""
        return None

    def logits(self, *, temperature: float, learnt: tuple[float, float] | None) -> dict[str, torch.Tensor]:
        """The parameters that turn cosines into logits, for a saved model: CLIP's scale, the logarithm of 1 / temperature."""
        return {"logit_scale": torch.tensor(math.log(1 / temperature))}


CLIP = ClipFamily()


def clip_from_scratch(
    shape: ScratchConfig, *, height: int, width: int, vocab_size: int, end_id: int, seed: int, stride: int | None = None
) -> CLIPModel:
    """A new CLIP of `shape`, its weights drawn with `seed` as transformers draws them. `vocab_size` and `end_id` are the tokenizer's."""
    vision: dict[str, Any] = {
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
        "patch_size": shape.patch_size,
        "hidden_act": "gelu",
        **grid_fields(height=height, width=width, patch=shape.patch_size, stride=stride or shape.patch_size),
    }
    text = {
        "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": shape.text_heads,
        "max_position_embeddings": shape.context,
        "vocab_size": vocab_size,
        "hidden_act": "gelu",
        "bos_token_id": end_id - 1,
        "eos_token_id": end_id,
        "pad_token_id": end_id,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=shape.embed_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP.model_class(config)(config).eval()
