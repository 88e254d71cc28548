"""Adapter interface (protocol) of dual-encoder architectures: CLIP and SigLIP differ in pooling, projections and padding, nowhere else.

A family is a handful of facts and functions beside transformers' own model; it holds no weights. Both models have vision_model,
text_model, get_image_features and get_text_features, whose pooler_output is the feature in the joint space. N samples, P positions of a
picture, T tokens of a text, W the tower's width, D dimensions of the joint space.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch

from reid_ray.errors import ConfigError
from reid_ray.model.dual.clip import CLIP
from reid_ray.model.dual.grid import POSITIONS, grid_fields, grid_of, image_size_of, resize_positions, stride_of, without_grid
from reid_ray.model.dual.siglip import SIGLIP


class Architecture(Protocol):
    """Facts and functions of one kind of model. class_tokens stand before the patches; pooling says how (pictures, texts) are pooled."""

    model_type: str
    config_class: type[Any]
    class_tokens: int
    pads_to_context: bool
    pooling: tuple[str, str]

    def model_class(self, config: Any) -> type[Any]:
        """The class that holds a model of `config`."""
        ...

    def dim(self, config: Any) -> int:
        """Dimensions of the joint space."""
        ...

    def project_patches(self, model: Any, hidden_NPW: torch.Tensor) -> torch.Tensor:
        """A vision layer's output -> the joint space [N, P, D], through the tower's final norm and projection."""
        ...

    def project_image_output(self, model: Any, last_NPW: torch.Tensor) -> torch.Tensor:
        """The vision tower's last_hidden_state -> the joint space [N, P, D]."""
        ...

    def project_tokens(self, model: Any, last_NTW: torch.Tensor) -> torch.Tensor:
        """The text tower's last_hidden_state, which has passed its final norm, -> the joint space [N, T, D]."""
        ...

    def scale_and_bias(self, model: Any) -> tuple[float, float] | None:
        """(log scale, bias) of the model's own sigmoid loss; None if it has none."""
        ...

    def logits(self, *, temperature: float, learnt: tuple[float, float] | None) -> dict[str, torch.Tensor]:
        """The parameters that turn cosines into logits, for a saved model. `learnt` is (log scale, bias) of a sigmoid loss."""
        ...


# By the model_type of transformers' configuration. A new one is a file beside this one and a line here (docs/extending.md).
FAMILIES: dict[str, Architecture] = {
    "clip": CLIP,
    "siglip": SIGLIP,
}


def family_of(model: Any) -> Architecture:
    """The family of a transformers model."""
    return FAMILIES[model.config.model_type]


def with_image_size(
    model: Any, *, height: int, width: int, stride: int | None = None, mode: Literal["bicubic", "bilinear"] = "bicubic"
) -> Any:
    """`model` for pictures of another size: position embeddings are interpolated, every other weight is kept.

    Args:
        model: CLIP or SigLIP.
        height: of pictures, in pixels.
        width: of pictures, in pixels.
        stride: pixels from one patch to the next; None keeps the model's own.
        mode: of interpolation.

    Raises:
        ConfigError: a picture would hold no whole patch, or pixels between two patches would not be seen.
    """
    family, vision = family_of(model), model.config.vision_config
    patch, stride = vision.patch_size, stride_of(vision) if stride is None else stride
    if image_size_of(vision) == (height, width) and stride_of(vision) == stride:
        return model
    if height < patch or width < patch:
        raise ConfigError(f"model.image_height {height} and model.image_width {width} must be at least one patch of {patch} pixels")
    if stride > patch:
        raise ConfigError(f"model.patch_stride {stride} exceeds the patch of {patch} pixels, so stripes of the picture would not be seen")
    values = model.config.to_dict()
    values["vision_config"] = without_grid(values["vision_config"]) | grid_fields(height=height, width=width, patch=patch, stride=stride)
    config = family.config_class.from_dict(values)
    state = model.state_dict()
    source, target = grid_of(vision), grid_of(config.vision_config)
    state[POSITIONS] = resize_positions(state[POSITIONS], source=source, target=target, class_tokens=family.class_tokens, mode=mode)
    with torch.random.fork_rng(devices=[]):
        resized = family.model_class(config)(config)
    resized.load_state_dict(state)
    return resized.eval()
