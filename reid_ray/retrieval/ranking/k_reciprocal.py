"""k-reciprocal re-ranking (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017), sparse.

Queries and gallery together are N items. An item is described by the neighbours that count it among their own nearest, weighted by
distance; two items are close if their descriptions overlap (Jaccard), and that is mixed with the original distance. The authors' code
holds several N x N matrices; here only a block of rows and the few hundred non-zeros of each description exist at a time.

Knows features; not people or files. The original distance is the squared Euclidean one, divided by each item's largest, as the
authors have it. Equal distances rank in item order, queries first.
"""

from __future__ import annotations

import numpy as np

from reid_ray.errors import DataError
from reid_ray.retrieval.ranking import k_reciprocal_kernels as kernels
from reid_ray.retrieval.ranking.blocks import BLOCK_BYTES, block_rows
from reid_ray.retrieval.ranking.exact import product_with, scores_of_block


class Reranker:
    """Re-ranked distances between queries and gallery, a block of queries at a time.

    Args:
        query_QD: float32 [Q, D].
        gallery_GD: float32 [G, D].
        k1: neighbours looked at for reciprocity (20 in the paper).
        k2: neighbours averaged in local query expansion (6); 1 is off.
        lambda_value: weight of the original distance (0.3).
        block_bytes: largest block of distances held at once.

    Raises:
        DataError: there are not more than k1 items.
    """

    def __init__(
        self,
        query_QD: np.ndarray,
        gallery_GD: np.ndarray,
        *,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        import torch

        self._queries, self._lambda = len(query_QD), lambda_value
        self._item_ND = np.ascontiguousarray(np.concatenate([query_QD, gallery_GD]), dtype=np.float32)
        if len(self._item_ND) <= max(k1, k2):
            raise DataError(f"re-ranking with k1 {k1} and k2 {k2} needs more than that many items, but there are {len(self._item_ND)}")
        self._square_N = np.einsum("nd,nd->n", self._item_ND, self._item_ND)
        self._product = product_with(torch.from_numpy(self._item_ND))
        self._rows = block_rows(len(self._item_ND), bytes_per_score=8, block_bytes=block_bytes)
        neighbour_NK, self._largest_N = self._neighbours(max(k1 + 1, k2))
        self._start, self._column, self._weight = self._describe(neighbour_NK, k1, k2)
        self._inverse = kernels.transpose(self._start, self._column, self._weight, len(self._item_ND))

    def distances(self, rows: slice = slice(None)) -> np.ndarray:
        """Re-ranked distances of the queries in `rows` to the gallery, float32 [B, G]: lower is closer."""
        rows = slice(*rows.indices(self._queries))
        jaccard_BN = kernels.jaccard_rows(
            rows.start, rows.stop, self._start, self._column, self._weight, *self._inverse, len(self._item_ND)
        )
        original_BG = self._squared(rows)[:, self._queries :] / self._largest_N[rows, None]
        mixed_BG = (1 - self._lambda) * jaccard_BN[:, self._queries :] + self._lambda * original_BG
        return np.ascontiguousarray(mixed_BG, dtype=np.float32)

    def _squared(self, rows: slice) -> np.ndarray:
        """Squared Euclidean distances of a block of items to all items."""
        import torch

        dot_BN = scores_of_block(torch.from_numpy(self._item_ND[rows]), self._product)
        squared_BN = self._square_N[rows, None] + self._square_N - 2 * dot_BN
        return np.maximum(squared_BN, 0, out=squared_BN)

    def _neighbours(self, keep: int) -> tuple[np.ndarray, np.ndarray]:
        """(the `keep` nearest items of each item, itself among them; its largest squared distance)."""
        count = len(self._item_ND)
        neighbour_NK, largest_N = np.empty((count, keep), np.int64), np.empty(count, np.float32)
        for start in range(0, count, self._rows):
            rows = slice(start, min(start + self._rows, count))
            squared_BN = self._squared(rows)
            largest_N[rows] = squared_BN.max(axis=1)
            kernels.nearest_rows(squared_BN, neighbour_NK[rows])
        if not (largest_N > 0).all():
            raise DataError("re-ranking needs items that differ, but all features are equal")
        return neighbour_NK, largest_N

    def _describe(self, neighbour_NK: np.ndarray, k1: int, k2: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sparse rows V (start, column, weight): expanded reciprocal neighbours, averaged over the k2 nearest."""
        reciprocal_NK = kernels.reciprocal(neighbour_NK[:, : k1 + 1])
        half_NK = kernels.reciprocal(neighbour_NK[:, : round(k1 / 2) + 1])  # rounds halves to even, as the authors' np.around does
        described = kernels.expand(reciprocal_NK, half_NK, self._item_ND, self._largest_N)
        return described if k2 == 1 else kernels.average(neighbour_NK[:, :k2], *described)
