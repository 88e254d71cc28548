"""Block size, result type and person groups, shared by ranking on the CPU and on a device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth, QueryResults

BLOCK_BYTES = 60 << 20  # scores held at once; on two threads 30 MiB each, and below 32 MiB glibc reuses pages instead of mapping new ones
_MOST_ROWS = 256  # more made no product faster, and their scores leave the cache before they are counted


@dataclass(frozen=True)
class Ranking:
    """Per-query results, and the best K hits of each query (index -1 and score -inf where fewer than K items are left)."""

    results: QueryResults
    top_index_QK: np.ndarray  # int64, rows of the gallery
    top_score_QK: np.ndarray  # float32


@dataclass(frozen=True)
class PersonGroups:
    """Gallery rows by person: order_G[start_Q[q] : stop_Q[q]] are the rows of query q's person, ascending."""

    order_G: np.ndarray
    start_Q: np.ndarray
    stop_Q: np.ndarray

    @classmethod
    def of(cls, truth: GroundTruth) -> PersonGroups:
        """Group the gallery once, then look up every query."""
        order_G = np.argsort(truth.gallery_person_G, kind="stable")
        sorted_G = truth.gallery_person_G[order_G]
        start_Q = np.searchsorted(sorted_G, truth.query_person_Q, side="left")
        stop_Q = np.searchsorted(sorted_G, truth.query_person_Q, side="right")
        return cls(order_G, start_Q, np.where(truth.query_person_Q == UNKNOWN, start_Q, stop_Q))


def block_rows(num_gallery: int, *, bytes_per_score: int, block_bytes: int) -> int:
    """Queries per block: as many as fit, at least one, and no more than a cache can hold for a gallery of usual size."""
    return max(1, min(_MOST_ROWS, block_bytes // max(1, bytes_per_score * num_gallery)))
