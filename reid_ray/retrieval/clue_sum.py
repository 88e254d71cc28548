"""What several clues amount to: the unit vector of the weighted sum of their unit vectors. Knows vectors alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from reid_ray.errors import DataError

_LEAST_NORM = 1e-6


def summed_vector(vectors: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """The unit vector of sum(weight x vector), float32 [D]; one vector with a weight above 0 is given back as it is.

    Args:
        vectors: unit vectors [D], at least one.
        weights: of each; below 0: less like it.

    Raises:
        DataError: "not_finite: ..." or "nothing_left: ...": there is nothing to search for.
    """
    total_D = np.zeros(len(vectors[0]), np.float64)
    for vector_D, weight in zip(vectors, weights, strict=True):
        total_D += weight * np.asarray(vector_D, np.float64)
    norm = math.sqrt(total_D @ total_D)
    if not math.isfinite(norm):
        raise DataError("not_finite: the encoder gave NaN or infinity for this query")
    if norm < _LEAST_NORM:
        raise DataError("nothing_left: the clues cancel out, so there is nothing to search for; weigh them otherwise")
    one = len(vectors) == 1 and weights[0] > 0
    return np.asarray(vectors[0] if one else total_D / norm, np.float32)
