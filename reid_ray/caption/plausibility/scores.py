"""Unit vectors of captions and their pictures by a dual encoder, in this process, for a few hundred pairs.

Knows the encoder; not what its scores mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from reid_ray.caption.plausibility.config import PlausibilityConfig
from reid_ray.caption.plausibility.judgement import PairScores
from reid_ray.data.images import decode_image
from reid_ray.errors import DataError

_MOST, _BATCH = 512, 32


def refuse_absent_encoder(limits: PlausibilityConfig, section: str) -> None:
    """Ask before the captions are made.

    Raises:
        DataError: an encoder is named, and is no folder.
    """
    if limits.encoder is not None and not Path(limits.encoder).is_dir():
        raise DataError(f"{section}.encoder: {limits.encoder} is no folder; give the model/ of a train job, or null")


class PairEncoder:
    """A dual encoder that scores captions against pictures, at most 512 pairs.

    Args:
        folder: its folder.
    """

    def __init__(self, folder: str) -> None:
        from reid_ray.model.pretrained import load_encoder

        self._encoder = load_encoder(folder)

    def scores(self, images: Mapping[str, bytes | None]) -> PairScores:
        """Vectors of texts and of those pictures: encoded, by id; those that are asked for can be decoded."""

        def vectors(texts: Sequence[str], image_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            starts = range(0, min(_MOST, len(texts)), _BATCH)
            ends = [min(start + _BATCH, _MOST, len(texts)) for start in starts]
            text_ND = [self._encoder.encode_texts(texts[start:end]) for start, end in zip(starts, ends, strict=True)]
            pictures = ([decode_image(images[each]) for each in image_ids[start:end]] for start, end in zip(starts, ends, strict=True))
            return np.concatenate(text_ND), np.concatenate([self._encoder.encode_images(batch) for batch in pictures])

        return vectors
