"""Image augmentation: colour jitter, horizontal flip, padded random crop, random erasing.

On resized uint8 pixels; knows no files or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

Colour = tuple[int, int, int]


class Fill(NamedTuple):
    """The colours that augmentation adds, RGB."""

    padding: Colour
    erased: Colour


def fill_of(kind: Literal["mean", "irra"], *, mean: Sequence[float], std: Sequence[float]) -> Fill:
    """What BatchesConfig.fill means for a model that normalises by `mean` and `std` (of pixels in [0, 1]).

    mean: the mean colour, which normalisation turns into zeros. irra: padding is black, and an erased rectangle is what normalisation
    turns into `mean` itself, for the code of IRRA and of LUPerson-MLLM erases with the mean after it has normalised.
    """
    if kind == "mean":
        return Fill(_colour(mean), _colour(mean))
    return Fill((0, 0, 0), _colour([m + s * m for m, s in zip(mean, std, strict=True)]))


def augment(
    pixels_HWC: np.ndarray,
    draw: np.random.Generator,
    *,
    flip: float,
    crop_padding: int,
    erase: float,
    colour: float,
    fill: Fill,
) -> np.ndarray:
    """A changed copy of one picture, uint8 [H, W, 3]; the same state of `draw` gives the same copy.

    Args:
        pixels_HWC: the picture, already resized.
        draw: random numbers; a fixed number of them is used, whichever changes apply.
        flip: probability of mirroring left to right.
        crop_padding: pixels of fill.padding around the picture before a crop of the old size is taken at random; 0 is off.
        erase: probability that a rectangle of 2-40 % of the area, height to width 0.3-3.3, becomes fill.erased (Zhong et al.
            2020).
        colour: brightness, contrast and saturation change, in this order, by factors from 1 - colour to 1 + colour; 0 is off.
        fill: colours of padding and of erased rectangles.
    """
    height, width = pixels_HWC.shape[:2]
    number = draw.random(11)
    changed = _recoloured(pixels_HWC, 1 + colour * (2 * number[8:] - 1)) if colour else pixels_HWC
    changed = changed[:, ::-1] if number[0] < flip else changed
    if crop_padding:
        padded = np.empty((height + 2 * crop_padding, width + 2 * crop_padding, 3), np.uint8)
        padded[:] = fill.padding
        padded[crop_padding : crop_padding + height, crop_padding : crop_padding + width] = changed
        top, left = (int(value * (2 * crop_padding + 1)) for value in number[1:3])
        changed = padded[top : top + height, left : left + width]
    changed = changed.copy()
    if number[3] < erase:
        area = (0.02 + 0.38 * number[4]) * height * width
        ratio = 0.3 * (3.3 / 0.3) ** number[5]
        tall, wide = min(round((area * ratio) ** 0.5), height), min(round((area / ratio) ** 0.5), width)
        top, left = int(number[6] * (height - tall + 1)), int(number[7] * (width - wide + 1))
        changed[top : top + tall, left : left + wide] = fill.erased
    return changed


def _colour(channels: Sequence[float]) -> Colour:
    red, green, blue = (min(255, round(255 * value)) for value in channels)
    return red, green, blue


def _recoloured(pixels_HWC: np.ndarray, factor_3: np.ndarray) -> np.ndarray:
    """Brightness, contrast and saturation by Pillow, as torchvision's ColorJitter changes them."""
    picture = Image.fromarray(pixels_HWC)
    for change, factor in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factor_3, strict=True):
        picture = change(picture).enhance(float(factor))
    return np.asarray(picture)
