"""A block of rows and their scores, as those who score give it to whoever keeps the best. Knows numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NO_ROWS = np.zeros(0, np.int64)
NO_MASK = np.zeros(0, np.bool_)


@dataclass(frozen=True)
class ScoredBlock:
    """Some rows of a place: row_B, or where that is empty `first` and those after it; mask_B says which count, empty: all.

    score_BP: float32 [B, P], a column for each query, and perhaps further ones that do not count; any number where a row does not count.
    """

    first: int
    row_B: np.ndarray
    score_BP: np.ndarray
    mask_B: np.ndarray
