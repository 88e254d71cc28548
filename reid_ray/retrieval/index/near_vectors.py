"""Pairs of neighbours among many unit vectors (FAISS): exactly for some ten thousand, through clusters for more.

Knows vectors; not pictures or what they are for.
"""

from __future__ import annotations

import numpy as np

_EXACT = 50_000  # vectors that are compared all with all
_PROBES = 32
_TRAINED_BY = 64  # vectors a cluster, drawn evenly


def neighbour_pairs(vector_ND: np.ndarray, *, neighbours: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Each vector's nearest others as pairs (i, j), i < j, each once, best first; and their cosines.

    Args:
        vector_ND: float32 unit rows.
        neighbours: how many of each.
        least: smallest cosine.

    Returns:
        int64 [P, 2] and float32 [P].
    """
    import faiss

    count, width = vector_ND.shape
    if count < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    index = faiss.IndexFlatIP(width)
    if count > _EXACT:
        lists = int(4 * count**0.5)
        index = faiss.IndexIVFFlat(index, width, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = _PROBES
        index.train(np.ascontiguousarray(vector_ND[:: max(1, count // (lists * _TRAINED_BY))]))
    index.add(vector_ND)
    score_NK, other_NK = index.search(vector_ND, min(neighbours + 1, count))
    row_NK = np.broadcast_to(np.arange(count)[:, None], other_NK.shape)
    kept = (other_NK >= 0) & (other_NK != row_NK) & (score_NK >= least)
    pair_P2 = np.sort(np.stack([row_NK[kept], other_NK[kept]], axis=1), axis=1)
    pair_P2, first = np.unique(pair_P2, axis=0, return_index=True)
    score_P = score_NK[kept][first]
    order = np.lexsort((pair_P2[:, 1], pair_P2[:, 0], -score_P))
    return pair_P2[order], score_P[order].astype(np.float32)
