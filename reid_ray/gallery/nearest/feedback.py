"""Relevance feedback (Rocchio, "Relevance Feedback in Information Retrieval", 1971): a query moved to what is liked, away from what is not.

Knows vectors alone.
"""

from __future__ import annotations

import numpy as np

from reid_ray.errors import DataError


def moved_query(query_D: np.ndarray | None, like_ND: np.ndarray, unlike_ND: np.ndarray, *, unlike_weight: float = 0.5) -> np.ndarray:
    """A unit vector [D]: the mean of the query and of what is liked, less the mean of what is not.

    Args:
        query_D: of a text or a picture; None: there are only items.
        like_ND: vectors of items, may be none.
        unlike_ND: vectors of items, may be none.
        unlike_weight: how strongly the latter push away; 0.5 keeps the direction of the query where they resemble it.

    Raises:
        DataError: nothing is left of the query, so nothing can be searched for.
    """
    toward = like_ND if query_D is None else np.concatenate([query_D[None], like_ND])
    moved = toward.astype(np.float64).mean(axis=0) if len(toward) else np.zeros(unlike_ND.shape[1])
    if len(unlike_ND):
        moved -= unlike_weight * unlike_ND.astype(np.float64).mean(axis=0)
    length = np.linalg.norm(moved)
    if not length > 1e-6:
        raise DataError("what is liked and what is not cancel out, so nothing is left to search for; name fewer items")
    return (moved / length).astype(np.float32)
