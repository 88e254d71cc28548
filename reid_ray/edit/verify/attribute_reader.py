"""The attribute classifier: a small convolutional network that reads what a person wears from the whole picture.

Knows tensors, pictures and a vocabulary {attribute: values}; not what is done with what it reads. It shares no weight and no class with
an editor. The layout is VGG's (Simonyan and Zisserman 2015) with batch normalisation, small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from reid_ray.edit.verify.config import ReaderConfig

Vocabulary = Mapping[str, Sequence[str]]


class AttributeReader(nn.Module):
    """Pictures in, logits of each attribute's values out.

    Args:
        vocabulary: attribute -> its values.
        config: sizes.
    """

    def __init__(self, vocabulary: Vocabulary, config: ReaderConfig) -> None:
        super().__init__()
        self.vocabulary, self.config = {name: tuple(values) for name, values in vocabulary.items()}, config
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(zip((3, *config.channels[:-1]), config.channels, strict=True)):
            layers += [nn.Conv2d(before, after, 3, 2 if number else 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        width = config.channels[-1] * (config.height // 8) * (config.width // 8)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Dropout(config.dropout), nn.Linear(width, config.hidden), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(config.hidden, len(values)) for name, values in self.vocabulary.items()})

    def forward(self, pictures_N3HW: Tensor) -> dict[str, Tensor]:
        """Attribute -> logits [N, values]."""
        return self.classify(self.features(pictures_N3HW))

    def features(self, pictures_N3HW: Tensor) -> Tensor:
        """Convolutional features, [N, channels, H / 8, W / 8]."""
        features: Tensor = self.body(pictures_N3HW)
        return features

    def classify(self, features: Tensor) -> dict[str, Tensor]:
        """Attribute -> logits of features."""
        hidden = self.hidden(features)
        return {name: head(hidden) for name, head in self.heads.items()}


def unit_tensor(pictures: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] as float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def at_size(picture: Any, config: ReaderConfig) -> np.ndarray:
    """A PIL picture, or uint8 [h, w, 3], at the reader's size: uint8 [H, W, 3]."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    if image.size == (config.width, config.height):
        return np.asarray(image)
    return np.asarray(image.resize((config.width, config.height), Image.Resampling.BICUBIC))
