"""Measures of an edit against sums that are written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from refusals import refused

from reid_ray.edit.verify.picture_measures import kernel_distance, mean_change, psnr

BEFORE = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
INSIDE = np.zeros((6, 4), bool)
INSIDE[2:4] = True


def test_change_is_the_mean_of_all_differences_there_whatever_their_sign():
    after = BEFORE.copy()
    after[3, 1] = 255 - after[3, 1]
    differences = [abs(int(BEFORE[3, 1, c]) - int(after[3, 1, c])) for c in range(3)]
    assert mean_change(BEFORE, after, INSIDE) == pytest.approx(sum(differences) / (8 * 3))
    assert mean_change(BEFORE, after, ~INSIDE) == 0
    assert mean_change(BEFORE, after, np.zeros((6, 4), bool)) == 0


def test_psnr_is_that_of_the_mean_square_and_infinite_for_equal_pictures():
    after = np.clip(BEFORE.astype(int) + 10, 0, 255).astype(np.uint8)
    squares = [(int(a) - int(b)) ** 2 for a, b in zip(BEFORE.ravel(), after.ravel(), strict=True)]
    assert psnr(BEFORE, after) == pytest.approx(10 * math.log10(255**2 / (sum(squares) / len(squares))))
    assert psnr(BEFORE, BEFORE) == math.inf
    after[~INSIDE] = BEFORE[~INSIDE]
    assert psnr(BEFORE, after, ~INSIDE) == math.inf
    assert psnr(BEFORE, after, INSIDE) < psnr(BEFORE, after)


def test_the_kernel_distance_is_the_unbiased_sum_over_pairs():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1

    def kernel(x, y):
        return (float(np.dot(x, y)) / 3 + 1) ** 3

    within = [[kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j] for s in (a, b)]
    across = [kernel(x, y) for x in a for y in b]
    expected = sum(sum(pairs) / len(pairs) for pairs in within) - 2 * sum(across) / len(across)
    assert kernel_distance(a, b) == pytest.approx(expected)


def test_the_kernel_distance_of_one_distribution_is_near_zero_and_grows_with_the_difference():
    draws = np.random.default_rng(2)
    first, second = (draws.normal(size=(400, 8)) for _ in range(2))
    near, far = kernel_distance(first, second), kernel_distance(first, second + 0.5)
    assert abs(near) < 0.02
    assert far > 10 * abs(near)
    with refused(ValueError, "two vectors"):
        kernel_distance(first[:1], second)
