"""IVF over 8-bit or RaBitQ's 1-bit codes (Gao and Long, SIGMOD 2024), by FAISS, and which clusters a filtered query looks into.

A query reads clusters in the order of their centroids' scores. Without a filter it reads the first few. What passes a filter is thinner
and the best of it farther away, so a filtered query goes on until it has read more that passes than it would have read without, by a power
of the share that passes: of all, or near the query where that is less. Where its k-th hit then is no better beside the last centroid than
it would have been without a filter, or nearly all that passes would be read, the query is searched exactly. Knows codes; not items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from reid_ray.gallery.config import NearestConfig

# What passes a filter of share s is thinner, so its best are farther away and harder to tell from others: a query looks at s^-2 times as
# much. The exponent was found on crowds of persons and on noise: with 1 recall falls below that without a filter.
FARTHER = 2.0
_NEARLY_ALL = 0.25  # of what passes; beyond, comparing it exactly costs no more
_POINTS_PER_LIST = 39  # k-means wants that many a cluster
_MOST_RESCORED = 16  # times as many candidates as without a filter


def new_clusters(sample_SD: np.ndarray, rows: int, config: NearestConfig) -> Any:
    """An empty FAISS index, trained.

    Args:
        sample_SD: vectors that train it, float32.
        rows: how many it will hold.
        config: of which kind, and how many clusters.
    """
    import faiss

    count, dim = sample_SD.shape
    # 4 sqrt(N) balances finding clusters against reading them.
    lists = min(config.lists or int(4 * rows**0.5), max(1, count // _POINTS_PER_LIST))
    coarse, metric = faiss.IndexFlatIP(dim), faiss.METRIC_INNER_PRODUCT
    if config.kind == "ivf":
        index = clustered = faiss.IndexIVFScalarQuantizer(coarse, dim, lists, faiss.ScalarQuantizer.QT_8bit, metric)
    else:
        clustered = faiss.IndexIVFRaBitQ(coarse, dim, lists, metric)
        rotation = faiss.RandomRotationMatrix(dim, dim)  # a bit a component says as much of each only if none matters more
        rotation.init(config.seed + 1)
        index = faiss.IndexPreTransform(rotation, clustered)
    clustered.cp.seed = config.seed
    clustered.cp.min_points_per_centroid = 1
    index.train(sample_SD)
    return index


@dataclass(frozen=True)
class _Lists:
    """For each query its lists in the order of the centroids' scores, these scores by list, how much that passes each holds, in that order,
    and how many of them are read.
    """

    order_QL: np.ndarray
    score_QL: np.ndarray
    holds_QL: np.ndarray
    stop_Q: np.ndarray

    def last(self) -> np.ndarray:
        """Score of the last centroid that each query reads: [Q]."""
        last_Q = self.order_QL[np.arange(len(self.stop_Q)), self.stop_Q - 1]
        found: np.ndarray = self.score_QL[np.arange(len(self.stop_Q)), last_Q]
        return found


class ClusterSearch:
    """Candidates of an IVF index.

    Args:
        index: as new_clusters made it, filled.
    """

    def __init__(self, index: Any) -> None:
        import faiss

        self._rotation = index.chain.at(0) if isinstance(index, faiss.IndexPreTransform) else None
        self._index, self._ivf = index, faiss.extract_index_ivf(index)  # the first owns the second
        self._centroid_LD = self._ivf.quantizer.reconstruct_n(0, self._ivf.nlist)
        self._list_N = np.empty(self._ivf.ntotal, np.int32)
        for number, row_B in _lists(self._ivf):
            self._list_N[row_B] = number
        self._size_L = np.bincount(self._list_N, minlength=self._ivf.nlist)

    def candidates(
        self, query_QD: np.ndarray, wanted: int, passing_N: np.ndarray | None, count: int, config: NearestConfig
    ) -> list[np.ndarray | None]:
        """Rows that may be among the best of each query, at least `wanted` or all that pass; None where an exact search costs no more."""
        rotated_QD = query_QD if self._rotation is None else self._rotation.apply(query_QD)
        score_QL = rotated_QD @ self._centroid_LD.T
        order_QL = np.argsort(-score_QL, axis=1, kind="stable")
        plain_QL = order_QL[:, : config.probes]
        plain_Q = self._size_L[plain_QL].sum(axis=1)
        holds_L = self._size_L if passing_N is None else _count(self._list_N, passing_N, len(self._size_L))
        share_Q = np.minimum(holds_L[plain_QL].sum(axis=1) / np.maximum(plain_Q, 1), count / len(self._list_N))
        farther_Q = np.maximum(share_Q, 1 / len(self._list_N)) ** -FARTHER
        read_Q = np.maximum(farther_Q * plain_Q, wanted)
        found: list[np.ndarray | None] = [None] * len(query_QD)
        asked = np.flatnonzero(read_Q < _NEARLY_ALL * count)
        if len(asked):
            holds_QL = holds_L[order_QL[asked]]
            stop_Q = np.argmax(np.cumsum(holds_QL, axis=1) >= read_Q[asked, None], axis=1) + 1
            kept = min(max(wanted, int(config.rescored * min(farther_Q[asked].max(), _MOST_RESCORED))), count)
            lists = _Lists(order_QL[asked], score_QL[asked], holds_QL, stop_Q)
            score_QC, row_QC = self._read(rotated_QD[asked], lists, kept, passing_N)
            trusted = np.ones(len(asked), np.bool_)
            if passing_N is not None:
                plain = _Lists(lists.order_QL, lists.score_QL, self._size_L[lists.order_QL], np.full(len(asked), plain_QL.shape[1]))
                plain_QC, _ = self._read(rotated_QD[asked], plain, wanted, None)
                trusted = lists.last() - plain.last() <= score_QC[:, wanted - 1] - plain_QC[:, -1]
            for query, row_C in zip(asked[trusted], row_QC[trusted], strict=True):
                found[query] = row_C[row_C >= 0]
        return found

    def _read(self, query_QD: np.ndarray, lists: _Lists, k: int, passing_N: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows of the k best codes in the lists of each query, best first; row -1 and a score below all others for none."""
        import faiss

        query_QD = np.ascontiguousarray(query_QD)
        most = int(lists.stop_Q.max())
        skipped_QP = (np.arange(most) >= lists.stop_Q[:, None]) | (lists.holds_QL[:, :most] == 0)
        first_QP = lists.order_QL[:, :most]
        list_QP = np.ascontiguousarray(np.where(skipped_QP, -1, first_QP))
        score_QP = np.ascontiguousarray(np.take_along_axis(lists.score_QL, first_QP, axis=1))
        selected = None if passing_N is None else faiss.IDSelectorBitmap(np.packbits(passing_N, bitorder="little"))
        parameters = faiss.SearchParametersIVF(nprobe=most, **({} if selected is None else {"sel": selected}))
        score_QC, row_QC = np.empty((len(query_QD), k), np.float32), np.empty((len(query_QD), k), np.int64)
        pointers = [faiss.swig_ptr(each) for each in (list_QP, score_QP, score_QC, row_QC)]
        self._ivf.search_preassigned_c(len(query_QD), faiss.swig_ptr(query_QD), k, *pointers, False, parameters)
        return score_QC, row_QC


def _lists(ivf: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(number, rows) of each list."""
    import faiss

    for number in range(ivf.nlist):
        size = ivf.invlists.list_size(number)
        if size:
            pointer = ivf.invlists.get_ids(number)
            yield number, faiss.rev_swig_ptr(pointer, size).copy()
            ivf.invlists.release_ids(number, pointer)


@numba.njit(nogil=True, cache=True)
def _count(list_N: np.ndarray, passing_N: np.ndarray, lists: int) -> np.ndarray:
    count_L = np.zeros(lists, np.int64)
    for row in range(list_N.shape[0]):
        if passing_N[row]:
            count_L[list_N[row]] += 1
    return count_L
