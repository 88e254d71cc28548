"""Architectures of multimodal LLMs in transformers (LLaVA, Qwen-VL): module names, the visual encoder's feature, aspect-ratio handling.

One dict names the families; everything else about them is transformers' business. Knows modules and processors; not weights on
disk, losses or training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch

from reid_ray.errors import ConfigError
from reid_ray.model.mllm.config import MllmConfig


@dataclass(frozen=True)
class MllmFamily:
    """One multimodal architecture and its differences.

    model_class: of transformers.
    visual, projector, language: dotted names below that class; the projector may lie inside the visual encoder.
    feature: (visual encoder, its output, picture inputs) -> [A, V], the encoder's own feature of each picture, after its final norm.
    fit_processor: changes a processor so that person crops keep their aspect ratio within the configured budget of pixels.
    most_tokens: (processor) -> image tokens of a picture, at most.
    sees: (processor, width, height of a picture) -> which of its image tokens see it, bool [N], and not only padding; None: all do.
    processors: class names of processors that feed this model.
    visual_attention: linear layers of the visual encoder's attention, by the last part of their names.
    """

    model_class: str
    visual: str
    projector: tuple[str, ...]
    language: str
    feature: Callable[[Any, Any, dict[str, torch.Tensor]], torch.Tensor]
    fit_processor: Callable[[Any, MllmConfig], None]
    most_tokens: Callable[[Any], int]
    sees: Callable[[Any, int, int], torch.Tensor | None]
    processors: tuple[str, ...]
    visual_attention: tuple[str, ...]

    def part(self, model: Any, name: str) -> Any:
        """The module with dotted `name` of `model`."""
        return attrgetter(name)(model)


def _clip_feature(visual: Any, output: Any, pictures: dict[str, torch.Tensor]) -> torch.Tensor:
    """CLIP's own: the class token after the last layer and its norm (LLaVA's tokens come from the layer before)."""
    return visual.post_layernorm(output.last_hidden_state[:, 0])  # type: ignore[no-any-return]


def _qwen_feature(norm: str) -> Callable[[Any, Any, dict[str, torch.Tensor]], torch.Tensor]:
    """Qwen's encoder has no class token: the mean over a picture's patches, after the norm that its merger applies first.

    Patches lie in windows inside a picture, but picture after picture, so the mean is a picture's own.
    """

    def feature(visual: Any, output: Any, pictures: dict[str, torch.Tensor]) -> torch.Tensor:
        patches_MV = attrgetter(norm)(visual)(output.last_hidden_state)
        counts = pictures["image_grid_thw"].prod(dim=-1).tolist()
        return torch.stack([part.mean(dim=0) for part in torch.split(patches_MV, counts)])

    return feature


def _budget(processor: Any, config: MllmConfig) -> None:
    image = processor.image_processor
    low = image.size["shortest_edge"] if config.min_pixels is None else config.min_pixels
    high = image.size["longest_edge"] if config.max_pixels is None else config.max_pixels
    if low > high:
        raise ConfigError(f"model: min_pixels {low} is above max_pixels {high} (one of them is the processor's own); set both")
    # In these processors the edges are areas in pixels, despite their names.
    image.size = {"shortest_edge": low, "longest_edge": high}


def _letterbox(processor: Any, config: MllmConfig) -> None:
    """LLaVA's square: pad a crop with the mean colour instead of cutting head and feet off, as LLaVA-1.5 was trained."""
    from transformers import LlavaImageProcessor

    for name in ("min_pixels", "max_pixels"):
        if getattr(config, name) is not None:
            raise ConfigError(f"model.{name}: LLaVA's pictures have one fixed size, so it has no budget of pixels; set it to null")
    old = processor.image_processor
    side = old.crop_size["height"]
    if not (old.image_mean and old.image_std and old.crop_size["width"] == side):
        raise ConfigError("model.processor: LLaVA needs a square crop_size, image_mean and image_std in preprocessor_config.json")
    processor.image_processor = LlavaImageProcessor(
        do_pad=True,
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(old.image_mean),
        image_std=list(old.image_std),
        resample=old.resample,
    )


def _tokens_of_budget(processor: Any) -> int:
    image = processor.image_processor
    return int(image.size["longest_edge"]) // (image.patch_size * image.merge_size) ** 2


def _tokens_of_square(processor: Any) -> int:
    return int(processor.image_processor.crop_size["height"] // processor.patch_size) ** 2 + _class_tokens(processor)


def _class_tokens(processor: Any) -> int:
    """Image tokens before the patches: the visual encoder's class token, which LLaVA-1.5 leaves out (select strategy default)."""
    return int(processor.num_additional_image_tokens) - (processor.vision_feature_select_strategy == "default")


def _whole_picture(processor: Any, width: int, height: int) -> None:
    """Qwen's pictures are resized, never padded."""


def _inside_letterbox(processor: Any, width: int, height: int) -> torch.Tensor | None:
    """Those whose patch holds a part of the picture, which lies in the middle of the square as LlavaImageProcessor pads it."""
    from transformers import LlavaImageProcessor

    image = processor.image_processor
    if not (isinstance(image, LlavaImageProcessor) and image.do_pad):
        return None  # not fitted by _letterbox: the square is cut out of the picture
    side, patch, longest = image.crop_size["height"], processor.patch_size, max(width, height)
    whole_N = torch.ones(_class_tokens(processor), dtype=torch.bool)  # a class token has seen the picture
    cell_N = torch.arange(side // patch)

    def inside(length: int) -> torch.Tensor:
        start = (longest - length) // 2
        # Cell c covers c * patch to (c + 1) * patch of `side` pixels, which were `longest`; in whole numbers, so that no edge is rounded.
        return ((cell_N + 1) * patch * longest > start * side) & (cell_N * patch * longest < (start + length) * side)

    return torch.cat([whole_N, (inside(height)[:, None] & inside(width)[None, :]).flatten()])


FAMILIES = {
    "llava": MllmFamily(
        model_class="LlavaForConditionalGeneration",
        visual="model.vision_tower",
        projector=("model.multi_modal_projector",),
        language="model.language_model",
        feature=_clip_feature,
        fit_processor=_letterbox,
        most_tokens=_tokens_of_square,
        sees=_inside_letterbox,
        processors=("LlavaProcessor",),
        visual_attention=("q_proj", "k_proj", "v_proj", "out_proj"),
    ),
    "qwen2_5_vl": MllmFamily(
        model_class="Qwen2_5_VLForConditionalGeneration",
        visual="model.visual",
        projector=("model.visual.merger",),
        language="model.language_model",
        feature=_qwen_feature("merger.ln_q"),
        fit_processor=_budget,
        most_tokens=_tokens_of_budget,
        sees=_whole_picture,
        processors=("Qwen2_5_VLProcessor",),
        visual_attention=("qkv", "proj"),
    ),
    "qwen3_vl": MllmFamily(
        model_class="Qwen3VLForConditionalGeneration",
        visual="model.visual",
        projector=("model.visual.merger", "model.visual.deepstack_merger_list"),
        language="model.language_model",
        feature=_qwen_feature("merger.norm"),
        fit_processor=_budget,
        most_tokens=_tokens_of_budget,
        sees=_whole_picture,
        processors=("Qwen3VLProcessor",),
        visual_attention=("qkv", "proj"),
    ),
}


def family_of(config: Any, *, origin: str) -> MllmFamily:
    """The family of a model's configuration.

    Raises:
        ConfigError: no family of FAMILIES, or a LLaVA whose visual encoder is not CLIP; names `origin`.
    """
    kind = getattr(config, "model_type", None)
    if kind not in FAMILIES:
        raise ConfigError(f"{origin}: model_type is {kind!r}; a multimodal LLM for re-identification is one of {', '.join(FAMILIES)}")
    if kind == "llava" and config.vision_config.model_type != "clip_vision_model":
        raise ConfigError(f"{origin}: its visual encoder is {config.vision_config.model_type!r}; LLaVA-1.5's is a clip_vision_model")
    return FAMILIES[kind]


def family_of_processor(processor: Any, *, origin: str) -> MllmFamily:
    """The family whose models a processor feeds.

    Raises:
        ConfigError: none of FAMILIES; names `origin`.
    """
    kind = type(processor).__name__
    for family in FAMILIES.values():
        if kind in family.processors:
            return family
    known = ", ".join(name for family in FAMILIES.values() for name in family.processors)
    raise ConfigError(f"{origin}: is a {kind}; the processor of a multimodal LLM for re-identification is one of {known}")
