"""Weight conversion: open_clip's published checkpoints -> transformers' CLIPModel.

Knows the two naming schemes and what a plain ViT and text transformer of open_clip may configure; every other architecture is
refused by name. The activation cannot be told from the weights: OpenAI's and some others need QuickGELU (x * sigmoid(1.702 x)), most
of open_clip's own GELU, and the wrong one costs accuracy in silence. So open_clip_config.json must be there to say it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from reid_ray.errors import DataError, reason_of
from reid_ray.model.strict_loading import load_state
from reid_ray.model.weight_files import read_state

OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# Constants that OpenAI's and old checkpoints carry along; the configuration says the same.
_CONSTANTS = ("attn_mask", "input_resolution", "context_length", "vocab_size")

_VISION_KEYS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_TOP_KEYS = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}

_RENAMED = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # transformers' own spelling
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "logit_scale": "logit_scale",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")


def load_open_clip(folder: Path) -> tuple[CLIPModel, dict[str, Any]]:
    """The model of an open_clip folder, and {"image_mean", "image_std"} where its configuration gives them.

    Raises:
        DataError: open_clip_config.json is missing, or describes more than a plain ViT and a causal text transformer; or the weights are
            not those it describes.
    """
    described = folder / "open_clip_config.json"
    if not described.is_file():
        raise DataError(
            f"{described}: is missing; without it nobody can tell whether the weights need GELU or QuickGELU; copy it from the repository"
        )
    try:
        published = json.loads(described.read_text(encoding="utf-8"))
        clip = CLIPModel(clip_config(published["model_cfg"], origin=str(described)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise DataError(f"{described}: describes no model ({reason_of(error)}); copy it again") from None
    file = next(folder / name for name in OPEN_CLIP_FILES if (folder / name).is_file())
    load_state(clip, convert_weights(read_state(file)), origin=str(file))
    preprocess = published.get("preprocess_cfg") or {}
    means = {"image_mean": preprocess["mean"], "image_std": preprocess["std"]} if {"mean", "std"} <= set(preprocess) else {}
    return clip.eval(), means


def clip_config(model_cfg: Mapping[str, Any], *, origin: str) -> CLIPConfig:
    """The configuration of CLIPModel for open_clip's `model_cfg`; `origin` is named in errors."""
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    unknown = sorted(
        [name for name, value in model_cfg.items() if name not in _TOP_KEYS and value]
        + [f"vision_cfg.{name}" for name, value in vision.items() if name not in _VISION_KEYS and value]
        + [f"text_cfg.{name}" for name, value in text.items() if name not in _TEXT_KEYS and value]
    )
    if unknown:
        raise DataError(
            f"{origin}: {', '.join(unknown)} belong to another architecture than CLIP's ViT; give a ViT checkpoint such as ViT-B-16"
        )
    activation = "quick_gelu" if model_cfg.get("quick_gelu", False) else "gelu"
    return CLIPConfig(
        projection_dim=model_cfg["embed_dim"],
        vision_config={
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            **_tower(vision, activation),
        },
        text_config={
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "num_attention_heads": text["heads"],
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
            "pad_token_id": text["vocab_size"] - 1,
            **_tower(text, activation),
        },
    )


def convert_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's state dictionary -> CLIPModel's: renamed, joint attention matrices split, projections transposed."""
    converted: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        block = _BLOCK.fullmatch(name)
        if name in ("visual.proj", "text_projection"):
            converted["visual_projection.weight" if name == "visual.proj" else "text_projection.weight"] = weight.T.contiguous()
        elif block is not None:
            tower = "vision_model" if block[1] else "text_model"
            converted.update(_convert_block(f"{tower}.encoder.layers.{block[2]}", block[3], weight))
        elif name in _RENAMED:
            converted[_RENAMED[name]] = weight
        elif name not in _CONSTANTS:
            raise DataError(f"open_clip weights: {name} has no place in CLIP's ViT; give a ViT checkpoint such as ViT-B-16")
    return converted


def _convert_block(prefix: str, name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.rsplit("_", 1)[1]
        return {f"{prefix}.self_attn.{part}_proj.{kind}": piece.clone() for part, piece in zip("qkv", weight.chunk(3), strict=True)}
    stem, kind = name.rsplit(".", 1)
    if stem not in _IN_BLOCK:
        raise DataError(f"open_clip weights: {name} has no place in a block of CLIP's ViT; give a ViT checkpoint such as ViT-B-16")
    return {f"{prefix}.{_IN_BLOCK[stem]}.{kind}": weight}


def _tower(cfg: Mapping[str, Any], activation: str) -> dict[str, Any]:
    return {
        "hidden_size": cfg["width"],
        "intermediate_size": int(cfg["width"] * cfg.get("mlp_ratio", 4.0)),
        "num_hidden_layers": cfg["layers"],
        "hidden_act": activation,
    }
