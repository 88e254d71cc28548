"""A perceptual hash of an image, and near pairs among many hashes without comparing all with all.

The hash is a difference hash: the picture is shrunk to 9 x 16 greys, and each of 128 bits says whether a grey is brighter than its
right neighbour. Re-encoding, scaling or brightening a picture flips few bits. Knows numbers only; not records or people.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from reid_ray.data.images import load_pixels, open_checked

BITS = 128
_COLUMNS, _ROWS = 8, 16
_BANDS = 8  # of 16 bits each: hashes that differ in at most 7 bits agree in one band at least
_BUCKET = 512  # a fuller bucket is compared along a sorted line only
_WINDOW = 64
_POPCOUNT = np.array([bin(value).count("1") for value in range(1 << 16)], dtype=np.uint8)


def difference_hash(data: bytes, max_pixels: int) -> bytes:
    """16 bytes of hash. Decodes the whole image (a JPEG at reduced size), so a truncated one is found.

    Raises:
        BadImageError: as images.decode_image.
    """
    picture = open_checked(data, max_pixels=max_pixels)
    picture.draft("L", (4 * (_COLUMNS + 1), 4 * _ROWS))
    load_pixels(picture)
    small = picture.convert("L").resize((_COLUMNS + 1, _ROWS), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes()


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
        for bucket in _buckets(words_NW[:, band]):
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


def _buckets(value_N: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of equal values, for every value that occurs more than once."""
    order = np.argsort(value_N, kind="stable")
    edges = np.flatnonzero(np.diff(value_N[order])) + 1
    for bucket in np.split(order, edges):
        if len(bucket) > 1:
            yield bucket
