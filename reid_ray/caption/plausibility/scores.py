"""Unit vectors of captions and their pictures by a dual encoder, in this process, for a few hundred pairs.

Knows the encoder; not what its scores mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reid_ray.caption.plausibility.judgement import PairScores
from reid_ray.data.images import decode_image

_MOST, _BATCH = 512, 32


def encoder_scores(folder: str, images: Mapping[str, bytes | None]) -> PairScores:
    """Vectors by the dual encoder in `folder`, of at most 512 pairs.

    Args:
        folder: its folder.
        images: encoded pictures by id; those that are asked for can be decoded.
    """
    from reid_ray.model.pretrained import load_encoder

    encoder = load_encoder(folder)

    def vectors(texts: Sequence[str], image_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        starts = range(0, min(_MOST, len(texts)), _BATCH)
        ends = [min(start + _BATCH, _MOST, len(texts)) for start in starts]
        text_ND = [encoder.encode_texts(texts[start:end]) for start, end in zip(starts, ends, strict=True)]
        pictures = ([decode_image(images[each]) for each in image_ids[start:end]] for start, end in zip(starts, ends, strict=True))
        return np.concatenate(text_ND), np.concatenate([encoder.encode_images(batch) for batch in pictures])

    return vectors
