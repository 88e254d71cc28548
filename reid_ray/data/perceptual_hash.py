"""A perceptual hash of an image, and near pairs among many hashes without comparing all with all.

The hash holds the signs of the 128 slowest waves (discrete cosine transform) of the picture at 32 x 64 greys. Encoding again, scaling
or brightening a picture flips a few of them; of two pictures of one street some 60 differ. Knows numbers only; not records or people.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from reid_ray.data.images import load_pixels, open_checked

BITS = 128
NEAR_BITS = 7  # encoding again flips 1 to 4, other pictures of one street differ in 16 or more
_WIDTH, _HEIGHT = 32, 64
_BANDS = 8  # of 16 bits each: hashes that differ in at most 7 bits agree in one band at least
_BUCKET = 512  # a fuller bucket is compared along a sorted line only
_WINDOW = 64
_POPCOUNT = np.array([bin(value).count("1") for value in range(1 << 16)], dtype=np.uint8)


def perceptual_hash(data: bytes, max_pixels: int) -> bytes:
    """16 bytes of hash. Decodes the whole image (a JPEG at reduced size), so a truncated one is found.

    Raises:
        BadImageError: as images.decode_image.
    """
    picture = open_checked(data, max_pixels=max_pixels)
    picture.draft("L", (2 * _WIDTH, 2 * _HEIGHT))
    load_pixels(picture)
    return picture_hash(picture)


def picture_hash(picture: Image.Image) -> bytes:
    """16 bytes of hash of a picture that is decoded already."""
    grey = np.asarray(picture.convert("L").resize((_WIDTH, _HEIGHT), Image.Resampling.BOX), dtype=np.float64)
    rows_KH, columns_LW, chosen = _waves()
    # half a grey level of play, so that a flat picture has one hash and not that of its rounding errors
    return np.packbits((rows_KH @ grey @ columns_LW.T).ravel()[chosen] > 0.5).tobytes()


@lru_cache(maxsize=1)
def _waves() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines over the height [17, 64] and the width [9, 32], and which of their 17 x 9 products are slowest, the mean left out."""
    tall = np.cos(np.pi * np.outer(np.arange(17), 2 * np.arange(_HEIGHT) + 1) / (2 * _HEIGHT))
    wide = np.cos(np.pi * np.outer(np.arange(9), 2 * np.arange(_WIDTH) + 1) / (2 * _WIDTH))
    speed = np.arange(17)[:, None] / 2 + np.arange(9)[None, :]  # a person is twice as tall as wide
    return tall, wide, np.argsort(speed.ravel(), kind="stable")[1 : BITS + 1]


def near_pairs(hash_NB: np.ndarray, max_bits: int) -> tuple[np.ndarray, bool]:
    """Index pairs (i, j), i < j, of hashes that differ in at most `max_bits` bits, and whether every pair was looked at.

    Args:
        hash_NB: uint8 [N, 16]; each row should be there once (equal hashes are the caller's to group).
        max_bits: 0 to 7.

    Returns:
        int64 [P, 2], sorted; False if some bucket was too full to compare all with all, so that pairs may be missing.
    """
    words_NW = np.ascontiguousarray(hash_NB).view(np.uint16)
    found: list[np.ndarray] = []
    complete = True
    for band in range(_BANDS):
        for bucket in groups(words_NW[:, band]):
            if len(bucket) <= _BUCKET:
                first, second = np.triu_indices(len(bucket), k=1)
            else:
                complete = False
                order = np.lexsort(words_NW[bucket].T)
                bucket = bucket[order]  # noqa: PLW2901 - the same bucket, similar hashes side by side
                first = np.repeat(np.arange(len(bucket)), _WINDOW)
                second = first + np.tile(np.arange(1, _WINDOW + 1), len(bucket))
                first, second = first[second < len(bucket)], second[second < len(bucket)]
            pairs = np.stack([bucket[first], bucket[second]], axis=1)
            distance = _POPCOUNT[words_NW[pairs[:, 0]] ^ words_NW[pairs[:, 1]]].sum(axis=1, dtype=np.int64)
            found.append(np.sort(pairs[distance <= max_bits], axis=1))
    pairs = np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)
    return np.unique(pairs, axis=0), complete


def groups(value_N: np.ndarray) -> list[np.ndarray]:
    """Indices of equal values, for every value that occurs more than once; groups in order of their first index."""
    order = np.argsort(value_N, kind="stable")
    edges = np.concatenate([[0], np.flatnonzero(np.diff(value_N[order])) + 1, [len(order)]])
    repeated = np.flatnonzero(np.diff(edges) > 1)
    return sorted((order[edges[k] : edges[k + 1]] for k in repeated), key=lambda group: int(group[0]))
