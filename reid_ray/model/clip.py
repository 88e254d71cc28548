"""transformers' CLIP for pictures that are not square.

CLIPModel knows one image_size; person crops are 384x128. RectangularCLIPModel replaces the table of position embeddings by one of
rows x columns entries and nothing else, so that every published CLIP loads, keeps its parameter names and, while square, stays a
plain CLIPModel on disk. Knows transformers' CLIP classes; not training, tokens or files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from reid_ray.config.model import ScratchConfig
from reid_ray.errors import ConfigError

POSITIONS = "vision_model.embeddings.position_embedding.weight"


class RectangularVisionEmbeddings(CLIPVisionEmbeddings):
    """Patch and position embeddings of a picture of vision_config.image_height x image_width pixels."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.size = image_size_of(config)
        rows, columns = grid_of(config)
        self.num_patches = rows * columns
        self.num_positions = self.num_patches + 1
        self.position_embedding = nn.Embedding(self.num_positions, self.embed_dim)
        self.position_ids = nn.Buffer(torch.arange(self.num_positions).expand((1, -1)), persistent=False)

    def interpolate_pos_encoding(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The table as it is: it has one entry per patch of this size already."""
        return self.position_embedding(self.position_ids)

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """[N, 3, height, width] -> [N, 1 + patches, width of the model]; another size is an error."""
        if tuple(pixel_values.shape[-2:]) != self.size:
            raise ValueError(f"pictures are {tuple(pixel_values.shape[-2:])} (height, width), but the model was built for {self.size}")
        # With this flag the base class skips its check for a square picture and asks the method above for the positions.
        return super().forward(pixel_values, interpolate_pos_encoding=True)


class RectangularCLIPModel(CLIPModel):
    """CLIPModel whose vision_config carries image_height and image_width beside image_size."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        self.vision_model.embeddings = RectangularVisionEmbeddings(config.vision_config)
        self.vision_model.embeddings.apply(self._init_weights)


def image_size_of(vision_config: Any) -> tuple[int, int]:
    """(height, width) in pixels that a model of this vision configuration reads."""
    if hasattr(vision_config, "image_height"):
        return int(vision_config.image_height), int(vision_config.image_width)
    return int(vision_config.image_size), int(vision_config.image_size)


def grid_of(vision_config: Any) -> tuple[int, int]:
    """(rows, columns) of patches; a rest narrower than a patch is not seen, as in CLIP."""
    height, width = image_size_of(vision_config)
    return height // vision_config.patch_size, width // vision_config.patch_size


def model_class(config: CLIPConfig) -> type[CLIPModel]:
    """RectangularCLIPModel where the configuration names a height and width, else plain CLIPModel."""
    return RectangularCLIPModel if hasattr(config.vision_config, "image_height") else CLIPModel


def clip_from_scratch(shape: ScratchConfig, *, height: int, width: int, vocab_size: int, end_id: int, seed: int) -> CLIPModel:
    """A new CLIP of `shape`, its weights drawn with `seed` as transformers draws them. `vocab_size` and `end_id` are the tokenizer's."""
    vision = {
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
        "patch_size": shape.patch_size,
        "hidden_act": "gelu",
        **_size_fields(height, width),
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
        return model_class(config)(config).eval()


def with_image_size(clip: CLIPModel, *, height: int, width: int) -> CLIPModel:
    """`clip` for pictures of another size: position embeddings are resized (bicubic), every other weight is kept.

    Raises:
        ConfigError: a picture would hold no whole patch.
    """
    vision = clip.config.vision_config
    if image_size_of(vision) == (height, width):
        return clip
    patch = vision.patch_size
    if height < patch or width < patch:
        raise ConfigError(f"model.image_height {height} and model.image_width {width} must be at least one patch of {patch} pixels")
    values = clip.config.to_dict()
    for name in ("image_size", "image_height", "image_width"):
        values["vision_config"].pop(name, None)
    values["vision_config"].update(_size_fields(height, width))
    config = CLIPConfig.from_dict(values)
    state = clip.state_dict()
    state[POSITIONS] = resize_positions(state[POSITIONS], source=grid_of(vision), target=grid_of(config.vision_config))
    with torch.random.fork_rng(devices=[]):
        resized = model_class(config)(config)
    resized.load_state_dict(state)
    return resized.eval()


def resize_positions(table_PD: torch.Tensor, *, source: tuple[int, int], target: tuple[int, int]) -> torch.Tensor:
    """Position embeddings of a class token and `source` rows x columns patches -> the same for `target`.

    Bicubic with a = -0.75, pixel centres aligned (torch's align_corners=False), as CLIP's users resize them; the class token's entry
    is kept.

    Args:
        table_PD: [1 + source rows * source columns, D].
        source: rows and columns of patches that the table has.
        target: rows and columns of patches wanted.
    """
    cls_1D, patches_PD = table_PD[:1], table_PD[1:]
    grid_1DRC = patches_PD.float().reshape(1, *source, -1).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(grid_1DRC, size=target, mode="bicubic", align_corners=False)
    return torch.cat([cls_1D, resized.permute(0, 2, 3, 1).reshape(target[0] * target[1], -1).to(table_PD.dtype)])


def _size_fields(height: int, width: int) -> dict[str, int]:
    # image_size only feeds the base class's table, which a rectangular model replaces; a square model needs nothing else.
    return {"image_size": height} if height == width else {"image_size": height, "image_height": height, "image_width": width}
