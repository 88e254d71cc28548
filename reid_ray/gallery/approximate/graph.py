"""HNSW (Malkov and Yashunin, TPAMI 2020) over 8-bit codes, by FAISS, and how far a filtered query goes through the graph.

A query names the nearest of all, and of them those that pass are kept: FAISS's own selector also takes what is merely met on the way, and
for a filter that passes nothing near the query that is all it finds. A filtered query goes farther by a power of the share that passes, and
four times as far again while it keeps less than it would have without, or sees less far beyond its last hit, as long as that is less than
comparing all that pass. Knows codes.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from reid_ray.gallery.approximate.clusters import FARTHER
from reid_ray.gallery.config import NearestConfig

_MOST_RESCORED = 16  # times as many candidates as without a filter
_FARTHEST = 0.1  # of the graph; beyond that it is quicker to look at everything that passes


def new_graph(sample_SD: np.ndarray, config: NearestConfig) -> Any:
    """An empty FAISS index, trained on float32 vectors."""
    import faiss

    graph = faiss.IndexHNSWSQ(sample_SD.shape[1], faiss.ScalarQuantizer.QT_8bit, config.links, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = config.build_depth
    graph.train(sample_SD)
    return graph


class GraphSearch:
    """Candidates of an HNSW index.

    Args:
        index: as new_graph made it, filled.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    def candidates(
        self, query_QD: np.ndarray, wanted: int, passing_N: np.ndarray | None, count: int, config: NearestConfig
    ) -> list[np.ndarray | None]:
        """Rows that may be among the best of each query, at least `wanted` or all that pass; None where an exact search costs no more."""
        import faiss

        total = self._index.ntotal
        kept = min(max(config.search_depth, wanted), count)
        found: list[np.ndarray | None] = [None] * len(query_QD)
        depth = min(ceil(kept * (total / count) ** FARTHER), total)
        waiting_Q = np.arange(len(query_QD))
        if passing_N is not None:
            plain_QC, _ = self._index.search(query_QD, kept, params=faiss.SearchParametersHNSW(efSearch=kept))
            margin_Q = plain_QC[:, wanted - 1] - plain_QC[:, -1]  # how far beyond the last of the wanted is seen without a filter
        while len(waiting_Q) and count > depth * config.links // 2 and depth <= max(_FARTHEST * total, kept):
            score_QC, row_QC = self._index.search(query_QD[waiting_Q], depth, params=faiss.SearchParametersHNSW(efSearch=depth))
            passing_QC = row_QC >= 0
            if passing_N is not None:
                passing_QC &= passing_N[row_QC]
            full_Q = passing_QC.sum(axis=1) >= kept
            if passing_N is not None:
                last_Q = np.argmax(np.cumsum(passing_QC, axis=1) >= wanted, axis=1)  # where the last of the wanted is
                full_Q &= score_QC[np.arange(len(last_Q)), last_Q] - score_QC[:, -1] >= margin_Q[waiting_Q]
            for query, row_C, passing_C in zip(waiting_Q[full_Q], row_QC[full_Q], passing_QC[full_Q], strict=True):
                found[query] = row_C[passing_C][: max(wanted, int(config.search_depth * min(depth / kept, _MOST_RESCORED)))]
            waiting_Q, depth = waiting_Q[~full_Q], 4 * depth
        return found
