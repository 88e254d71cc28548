"""What can be seen of a crop without a model: colours of its upper and lower half, and a perceptual hash.

Knows pixels; not captions. The halves are where a person who fills the crop wears things: a fifth to somewhat below half of the height, and
the legs, without the sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from reid_ray.data.images import BadImageError, decode_shrunk
from reid_ray.data.perceptual_hash import picture_hash

COLORS = ("black", "white", "grey", "red", "orange", "yellow", "blond", "green", "blue", "purple", "pink", "brown", "beige")
HALVES = {"upper color": (slice(13, 29), slice(10, 22)), "lower color": (slice(35, 54), slice(10, 22))}  # of 64 x 32
_HEIGHT, _WIDTH = 64, 32
_KEEP_PIXELS = 128 * 64


@dataclass(frozen=True)
class CropLooks:
    """N pictures: ids, mean colours of both halves [N, 6], bits of their hashes [N, 128] as 0 and 1.

    `colors` is for each half the share of pixels of each of COLORS [N, C].
    """

    image_ids: tuple[str, ...]
    mean_N6: np.ndarray
    bits_NB: np.ndarray
    colors: dict[str, np.ndarray]


def look_at(images: Iterable[tuple[str, bytes | None]], *, max_pixels: int) -> CropLooks:
    """What is seen of each image, by id; one that cannot be decoded is passed over: the job that read it has counted it."""
    found = []
    for image_id, data in images:
        try:
            picture = decode_shrunk(data, max_pixels=max_pixels, keep_pixels=_KEEP_PIXELS)
        except BadImageError:
            continue
        small = picture.convert("RGB").resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)
        pixels = np.asarray(small, dtype=np.float32) / 255
        halves = [pixels[rows, columns].reshape(-1, 3) for rows, columns in HALVES.values()]
        means, shares = np.concatenate([half.mean(axis=0) for half in halves]), [color_shares(half) for half in halves]
        found.append((image_id, means, np.unpackbits(np.frombuffer(picture_hash(picture), np.uint8)), shares))
    if not found:
        return CropLooks((), np.zeros((0, 6), np.float32), np.zeros((0, 128), np.uint8), {})
    ids, means_N, bits, shares_N = zip(*found, strict=True)
    colors = {half: np.stack([shares[number] for shares in shares_N]) for number, half in enumerate(HALVES)}
    return CropLooks(ids, np.stack(means_N), np.stack(bits), colors)


def color_shares(pixel_P3: np.ndarray) -> np.ndarray:
    """CommonestValue of pixels that a person might call each of COLORS [C]; a pixel may go by several names, as dusky ones do.

    Args:
        pixel_P3: RGB in [0, 1].
    """
    top_P, low_P = pixel_P3.max(axis=1), pixel_P3.min(axis=1)
    spread_P = top_P - low_P
    saturation_P = spread_P / np.maximum(top_P, 1e-6)
    hue_P = _hue(pixel_P3, top_P, spread_P)
    vivid_P = (spread_P > 0.12) & (saturation_P > 0.25)
    called = {
        "black": top_P < 0.3,
        "white": (top_P > 0.62) & (saturation_P < 0.25),
        "grey": (top_P >= 0.2) & (top_P < 0.8) & (saturation_P < 0.25),
        "red": vivid_P & ((hue_P >= 340) | (hue_P < 15)),
        "orange": vivid_P & (hue_P >= 10) & (hue_P < 42),
        "yellow": vivid_P & (hue_P >= 40) & (hue_P < 70),
        "blond": vivid_P & (hue_P >= 25) & (hue_P < 65),
        "green": vivid_P & (hue_P >= 70) & (hue_P < 170),
        "blue": vivid_P & (hue_P >= 170) & (hue_P < 260),
        "purple": vivid_P & (hue_P >= 250) & (hue_P < 320),
        "pink": vivid_P & (hue_P >= 300),
        "brown": vivid_P & (hue_P >= 5) & (hue_P < 45) & (top_P < 0.65),
        "beige": (spread_P > 0.04) & (hue_P >= 15) & (hue_P < 65) & (top_P > 0.45) & (saturation_P < 0.5),
    }
    return np.array([called[color].mean() for color in COLORS], dtype=np.float32)


def _hue(pixel_P3: np.ndarray, top_P: np.ndarray, spread_P: np.ndarray) -> np.ndarray:
    """Degrees on the colour circle; 0 of a grey."""
    red, green, blue = pixel_P3.T
    safe_P = np.maximum(spread_P, 1e-6)
    hue_P = np.where(
        top_P == red, ((green - blue) / safe_P) % 6, np.where(top_P == green, (blue - red) / safe_P + 2, (red - green) / safe_P + 4)
    )
    return np.where(spread_P > 0, 60 * hue_P, 0.0)
