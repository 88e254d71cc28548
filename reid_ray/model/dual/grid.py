"""Patch grids of pictures that are not square, or whose patches overlap (stride), and interpolation of position embeddings.

transformers' vision towers know one image_size and cut it into patches side by side. AnyGrid replaces their table of position
embeddings by one entry per patch of a height x width, cut every patch_stride pixels, and nothing else, so that every published weight
loads and keeps its name. Knows configurations and tables; not which model they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

POSITIONS = "vision_model.embeddings.position_embedding.weight"
# What a vision configuration holds beside transformers' own fields where pictures are not square or patches overlap.
_OWN_FIELDS = ("image_height", "image_width", "patch_stride")


class AnyGrid:
    """Mixed into transformers' vision embeddings, before them: patch and position embeddings of any grid of patches."""

    class_tokens = 0

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.size = image_size_of(config)
        rows, columns = grid_of(config)
        self.num_patches = rows * columns
        self.num_positions = self.num_patches + self.class_tokens
        self.position_embedding = nn.Embedding(self.num_positions, self.embed_dim)  # type: ignore[attr-defined]
        self.position_ids = nn.Buffer(torch.arange(self.num_positions).expand((1, -1)), persistent=False)
        self.patch_embedding.stride = (stride_of(config),) * 2  # type: ignore[attr-defined]

    def interpolate_pos_encoding(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The table as it is: it has one entry per patch of this size already."""
        return self.position_embedding(self.position_ids)

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """[N, 3, height, width] -> [N, class tokens + patches, width of the model]; another size is an error."""
        if tuple(pixel_values.shape[-2:]) != self.size:
            raise ValueError(f"pictures are {tuple(pixel_values.shape[-2:])} (height, width), but the model was built for {self.size}")
        # With this flag the base class skips its check for a square picture and asks the method above for the positions.
        return super().forward(pixel_values, interpolate_pos_encoding=True)  # type: ignore[misc]


class AnyGridModel:
    """Mixed into transformers' dual encoders, before them: vision_config may carry image_height, image_width and patch_stride."""

    embeddings_class: type[AnyGrid]

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.vision_model.embeddings = self.embeddings_class(config.vision_config)  # type: ignore[attr-defined]
        self.vision_model.embeddings.apply(self._init_weights)  # type: ignore[attr-defined]


def image_size_of(vision_config: Any) -> tuple[int, int]:
    """(height, width) in pixels that a model of this vision configuration reads."""
    if hasattr(vision_config, "image_height"):
        return int(vision_config.image_height), int(vision_config.image_width)
    return int(vision_config.image_size), int(vision_config.image_size)


def stride_of(vision_config: Any) -> int:
    """Pixels from one patch to the next; the patch size unless patches overlap."""
    return int(getattr(vision_config, "patch_stride", vision_config.patch_size))


def grid_of(vision_config: Any) -> tuple[int, int]:
    """(rows, columns) of patches; a rest narrower than a patch is not seen, as in CLIP."""
    height, width = image_size_of(vision_config)
    patch, stride = vision_config.patch_size, stride_of(vision_config)
    return (height - patch) // stride + 1, (width - patch) // stride + 1


def needs_any_grid(vision_config: Any) -> bool:
    """Whether transformers' own class cannot hold a model of this vision configuration."""
    return any(hasattr(vision_config, name) for name in _OWN_FIELDS)


def grid_fields(*, height: int, width: int, patch: int, stride: int) -> dict[str, int]:
    """The fields of a vision configuration for this size; a square one whose patches do not overlap needs transformers' own alone."""
    # image_size only feeds the base class's table, which AnyGrid replaces.
    fields = {"image_size": height}
    if height != width:
        fields |= {"image_height": height, "image_width": width}
    if stride != patch:
        fields |= {"patch_stride": stride}
    return fields


def without_grid(vision_values: Mapping[str, Any]) -> dict[str, Any]:
    """A vision configuration's values less all that says what its pictures' size and stride are."""
    return {name: value for name, value in vision_values.items() if name not in ("image_size", *_OWN_FIELDS)}


def resize_positions(
    table_PD: torch.Tensor,
    *,
    source: tuple[int, int],
    target: tuple[int, int],
    class_tokens: int = 1,
    mode: Literal["bicubic", "bilinear"] = "bicubic",
) -> torch.Tensor:
    """Position embeddings of class tokens and `source` rows x columns patches -> the same for `target`.

    Pixel centres are aligned (torch's align_corners=False), as CLIP's users resize them; the class tokens' entries are kept.

    Args:
        table_PD: [class_tokens + source rows * source columns, D].
        source: rows and columns of patches that the table has.
        target: rows and columns of patches wanted.
        class_tokens: entries before those of patches: 1 in CLIP, 0 in SigLIP.
        mode: of interpolation; bicubic with a = -0.75.
    """
    first_CD, patches_PD = table_PD[:class_tokens], table_PD[class_tokens:]
    grid_1DRC = patches_PD.float().reshape(1, *source, -1).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(grid_1DRC, size=target, mode=mode, align_corners=False)
    return torch.cat([first_CD, resized.permute(0, 2, 3, 1).reshape(target[0] * target[1], -1).to(table_PD.dtype)])
