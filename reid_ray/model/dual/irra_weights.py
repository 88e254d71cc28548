"""Weight conversion: checkpoints of IRRA's code, and of what is built on it (LUPerson-MLLM's), -> transformers' CLIPModel.

A checkpoint is one .pth, {"model": state dictionary, ...}: CLIP under OpenAI's names below `base_model.`, the losses' heads beside it, all
of it below `module.` where it was trained on several GPUs. It says no more, so the rest is what that code fixes: QuickGELU, attention
heads of 64 dimensions, patches side by side. Knows names and shapes; not tokenizers or training. The losses' heads are left out by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from reid_ray.errors import DataError
from reid_ray.model.dual.clip import CLIP
from reid_ray.model.dual.grid import grid_fields
from reid_ray.model.dual.open_clip_weights import convert_weights
from reid_ray.model.strict_loading import load_state
from reid_ray.model.weight_files import read_state

CHECKPOINT = "*.pth"
_TOWERS = "base_model."
_HEAD_DIM = 64
_TEMPERATURE = 0.02
# Height to width of the pictures that such models are trained on: 384 x 128, then 256 x 128, then CLIP's own.
_ASPECTS = (3, 2, 1)


def checkpoint_in(folder: Path) -> Path | None:
    """The checkpoint of a folder, None if there is none.

    Raises:
        DataError: there are several, such as one for each data set that an epoch was the best of.
    """
    found = sorted(folder.glob(CHECKPOINT))
    if len(found) > 1:
        raise DataError(f"{folder}: holds {len(found)} checkpoints ({found[0].name}, {found[1].name} ...); leave the one that you mean")
    return found[0] if found else None


def load_irra(file: Path) -> tuple[CLIPModel, list[str]]:
    """The two towers of a checkpoint, and the names of the weights that belong to neither.

    Raises:
        DataError: it cannot be read without running code in it, or its weights are not those of CLIP's ViT.
    """
    state = read_state(file)
    towers = {name.removeprefix(_TOWERS): value.float() for name, value in state.items() if name.startswith(_TOWERS)}
    if not towers:
        raise DataError(f"{file}: holds no weights below {_TOWERS}, so it is no checkpoint of IRRA's code; give a folder of a CLIP model")
    converted = convert_weights(towers)
    model_config = irra_config(towers, origin=str(file))
    model = CLIP.model_class(model_config)(model_config)
    load_state(model, converted | CLIP.logits(temperature=_TEMPERATURE, learnt=None), origin=str(file))
    return model.eval(), sorted(name for name in state if not name.startswith(_TOWERS))


def irra_config(towers: Mapping[str, torch.Tensor], *, origin: str) -> CLIPConfig:
    """The configuration of CLIPModel, from the shapes of its weights under OpenAI's names; `origin` is named in errors."""
    try:
        patch_embedding, positions = towers["visual.conv1.weight"], towers["visual.positional_embedding"]
        (vocabulary, text_width), context = towers["token_embedding.weight"].shape, len(towers["positional_embedding"])
        dim = towers["text_projection"].shape[1]
    except KeyError as error:
        raise DataError(
            f"{origin}: holds no {_TOWERS}{error.args[0]}, so its image tower is no ViT of CLIP; give a ViT checkpoint"
        ) from None
    vision_width, patch = patch_embedding.shape[0], patch_embedding.shape[-1]
    rows, columns = _grid(len(positions) - 1, origin=origin)
    return CLIPConfig(
        projection_dim=dim,
        vision_config={
            **_tower(vision_width, _layers(towers, "visual.transformer.resblocks.")),
            "patch_size": patch,
            **grid_fields(height=rows * patch, width=columns * patch, patch=patch, stride=patch),
        },
        text_config={
            **_tower(text_width, _layers(towers, "transformer.resblocks.")),
            "max_position_embeddings": context,
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
        },
    )


def _grid(patches: int, *, origin: str) -> tuple[int, int]:
    for aspect in _ASPECTS:
        columns = math.isqrt(patches // aspect)
        if columns and aspect * columns * columns == patches:
            return aspect * columns, columns
    raise DataError(
        f"{origin}: its positions are of {patches} patches, which cut no picture of 3:1, 2:1 or 1:1 side by side; "
        "give a checkpoint that was trained with stride_size equal to the patch size"
    )


def _layers(towers: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in towers if name.startswith(prefix)})


def _tower(width: int, layers: int) -> dict[str, int | str]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // _HEAD_DIM,
        "hidden_act": "quick_gelu",
    }
