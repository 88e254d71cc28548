"""Augmentation: off means untouched, each change does what it says, the same draw gives the same picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from reid_ray.train.feed.augment import Fill, augment, fill_of

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 12, 3), np.uint8)
COLOUR = (1, 2, 3)
FILL = Fill(COLOUR, COLOUR)


def changed(seed: int = 0, **options) -> np.ndarray:
    return augment(
        PICTURE, np.random.default_rng(seed), **{"flip": 0.0, "crop_padding": 0, "erase": 0.0, "colour": 0.0, "fill": FILL, **options}
    )


def test_nothing_on_changes_nothing_and_the_original_is_never_touched():
    before = PICTURE.copy()
    assert np.array_equal(changed(), PICTURE)
    changed(flip=1.0, crop_padding=3, erase=1.0)
    assert np.array_equal(PICTURE, before)


def test_flip_mirrors():
    assert np.array_equal(changed(flip=1.0), PICTURE[:, ::-1])


def test_crop_is_a_shift_within_the_padding():
    shifted = changed(seed=5, crop_padding=3)
    padded = np.full((30, 18, 3), COLOUR, np.uint8)
    padded[3:27, 3:15] = PICTURE
    windows = [padded[top : top + 24, left : left + 12] for top in range(7) for left in range(7)]
    assert shifted.shape == PICTURE.shape
    assert sum(np.array_equal(shifted, window) for window in windows) == 1


@pytest.mark.parametrize("seed", range(20))
def test_erasing_fills_one_rectangle_of_the_stated_area(seed):
    gone = (changed(seed=seed, erase=1.0) == COLOUR).all(axis=2)
    rows, columns = np.flatnonzero(gone.any(axis=1)), np.flatnonzero(gone.any(axis=0))
    assert gone[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert 0.01 <= gone.mean() <= 0.45


def test_irras_fill_is_what_its_transforms_leave():
    """torchvision's, in the published order: pad a picture (black), normalise it, then erase it with the mean."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    fill = fill_of("irra", mean=mean, std=std)
    assert fill.padding == (0, 0, 0)
    normalised = (np.array(fill.erased) / 255 - mean) / std
    np.testing.assert_allclose(normalised, mean, atol=0.5 / 255 / min(std))
    both = changed(1, crop_padding=3, erase=1.0, fill=fill)
    assert (both == fill.erased).all(axis=2).any()
    assert fill_of("mean", mean=mean, std=std) == ((123, 117, 104), (123, 117, 104))


@pytest.mark.parametrize("seed", range(5))
def test_colour_changes_brightness_contrast_and_saturation_as_torchvision_does(seed):
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    bright, contrast, saturation = 1 + 0.4 * (2 * np.random.default_rng(seed).random(11)[8:] - 1)
    expected = transforms.adjust_brightness(Image.fromarray(PICTURE), bright)
    expected = transforms.adjust_saturation(transforms.adjust_contrast(expected, contrast), saturation)
    assert np.array_equal(changed(seed=seed, colour=0.4), np.asarray(expected))
    assert not np.array_equal(changed(seed=seed, colour=0.4), PICTURE)


def test_colour_leaves_the_other_changes_where_they_were():
    options = {"flip": 0.5, "crop_padding": 4, "erase": 0.5}
    grey = np.full((24, 12, 3), 100, np.uint8)
    for seed in range(10):
        plain, coloured = (augment(grey, np.random.default_rng(seed), **options, colour=c, fill=FILL) for c in (0.0, 0.5))
        assert np.array_equal((plain == COLOUR).all(axis=2), (coloured == COLOUR).all(axis=2))


def test_the_same_draw_gives_the_same_picture():
    options = {"flip": 0.5, "crop_padding": 4, "erase": 0.5, "colour": 0.3}
    assert np.array_equal(changed(7, **options), changed(7, **options))
    assert len({changed(seed, **options).tobytes() for seed in range(10)}) > 5
