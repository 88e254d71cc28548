"""Image measures of an edit: change inside and outside its masks, PSNR, and the kernel distance between two sets of features.

Pure functions of arrays; no model.
"""

from __future__ import annotations

import math

import numpy as np


def mean_change(before: np.ndarray, after: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute difference in grey levels over the pixels `where` (bool [H, W]) of two uint8 [H, W, 3]; 0 where there are none."""
    if not where.any():
        return 0.0
    return float(np.abs(before[where].astype(np.int16) - after[where]).mean())


def psnr(before: np.ndarray, after: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio, dB, of two uint8 [H, W, 3], or of the pixels `where` (bool [H, W]) alone; infinite if they are equal."""
    where = np.ones(before.shape[:2], bool) if where is None else where
    difference = before[where].astype(np.float64) - after[where]
    error = float((difference**2).mean()) if difference.size else 0.0
    return 10 * math.log10(255.0**2 / error) if error else math.inf


def kernel_distance(first_ND: np.ndarray, second_MD: np.ndarray) -> float:
    """Kernel inception distance of two sets of features (Binkowski et al. 2018): the squared MMD, unbiased, of a cubic kernel.

    It may be negative by chance where both sets are of one distribution. Of features of another network than Inception it is comparable
    within that network alone.

    Args:
        first_ND: N feature vectors, at least 2.
        second_MD: M feature vectors, at least 2.
    """
    (count, dim), other = first_ND.shape, len(second_MD)
    if min(count, other) < 2:
        raise ValueError(f"a kernel distance needs two vectors on each side, not {count} and {other}")
    first, second = first_ND.astype(np.float64), second_MD.astype(np.float64)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        values: np.ndarray = (a @ b.T / dim + 1) ** 3
        return values

    def apart(vectors: np.ndarray) -> float:
        values = kernel(vectors, vectors)
        return float((values.sum() - np.trace(values)) / (len(vectors) * (len(vectors) - 1)))

    return apart(first) + apart(second) - 2 * float(kernel(first, second).mean())
