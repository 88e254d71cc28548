"""Exact nearest neighbours over blocks of vectors, some of which are masked: BLAS finds candidates, a fixed order of sums ranks them.

A score is the sum of products in float64 in one order, rounded to float32: it depends on neither the batch nor the place of a vector, so
equal vectors tie exactly, and ties keep the order of their places. BLAS's float32 sums of unit vectors are off by at most D x 2^-24 each;
whatever comes closer than that to the k-th place is summed again. Of vectors that are known to be equal only the first k are looked at: a
later one cannot come before them. Knows numbers; not items, files or filters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numba
import numpy as np

from reid_ray.gallery.sealed.twins import NO_TWINS, Twins

_ROWS_PER_BLOCK = 8_192  # 16 MB of 512 float32, and for each query 32 KB of scores
_ROWS_GATHERED = 2_048  # copied rows stay in the second-level cache until they are multiplied
_SPARE = 256  # candidates beyond k before they are thinned out
_NO_ROWS = np.zeros(0, np.int64)
_NO_MASK = np.zeros(0, np.bool_)


@dataclass(frozen=True)
class Place:
    """Vectors in a row, and which of them count.

    vectors: float32 or float16 [N, D].
    passing: N truth values, or None for all.
    twins: which of them are equal, as far as that is known; it saves time and changes nothing.
    """

    vectors: np.ndarray
    passing: np.ndarray | None = None
    twins: Twins = NO_TWINS


@dataclass(frozen=True)
class _Block:
    """Some rows of a place: row_B, or where that is empty `first` and those after it; mask_B says which count, empty: all."""

    first: int
    row_B: np.ndarray
    vector_BD: np.ndarray
    mask_B: np.ndarray


def exact_top(query_QD: np.ndarray, places: Sequence[Place], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best vectors of each query, best first: float32 scores, int32 numbers of places, int64 rows in them, [Q, K] each.

    K is k, or how many vectors count where that is less. Equal scores are in the order of place and row.
    """
    query_QD = np.ascontiguousarray(query_QD, np.float32)
    queries, dim = query_QD.shape
    counts = [len(place.vectors) if place.passing is None else int(np.count_nonzero(place.passing)) for place in places]
    k = min(k, sum(counts))
    if not queries or not k:
        return np.zeros((queries, 0), np.float32), np.zeros((queries, 0), np.int32), np.zeros((queries, 0), np.int64)
    starts = np.cumsum([0, *(len(place.vectors) for place in places)])
    shortlists = _Shortlists(queries, k, slack=4 * dim * 2.0**-24)  # of two sums, and for vectors a little longer than 1
    for start, place, count in zip(starts, places, counts, strict=False):
        kept_QT = np.zeros((queries, place.twins.groups), np.int32)  # memory is touched where there are twins among the best
        for block in _blocks(place, count, queries):
            shortlists.add(query_QD @ block.vector_BD.T, block, int(start), place.twins.group_N, kept_QT)
    return _ranked(query_QD, places, starts, shortlists.rows(), k)


class _Shortlists:
    """For each query the rows that may be among its best k."""

    def __init__(self, queries: int, k: int, *, slack: float) -> None:
        self._k, self._slack = k, np.float32(slack)
        room = 2 * (k + _SPARE) + _ROWS_PER_BLOCK
        self._score_QC, self._row_QC = np.empty((queries, room), np.float32), np.empty((queries, room), np.int64)
        self._held_Q, self._thin_Q = np.zeros(queries, np.int64), np.full(queries, k + _SPARE, np.int64)
        self._floor_Q = np.full(queries, -np.inf, np.float32)

    def add(self, score_QB: np.ndarray, block: _Block, start: int, group_N: np.ndarray, kept_QT: np.ndarray) -> None:
        """Take the candidates of a block of the place that begins at `start`; kept_QT counts those of each group of twins."""
        most = int(self._held_Q.max()) + score_QB.shape[1]
        if most > self._score_QC.shape[1]:  # so many tie that thinning does not help
            self._score_QC, self._row_QC = (np.pad(each, ((0, 0), (0, most))) for each in (self._score_QC, self._row_QC))
        held = self._floor_Q, self._held_Q, self._score_QC, self._row_QC
        _sift(score_QB, block.mask_B, block.first, start, block.row_B, group_N, kept_QT, self._k, *held)
        for query in np.flatnonzero(self._held_Q >= self._thin_Q):
            self._thin(query)

    def rows(self) -> list[np.ndarray]:
        """Candidates of each query, by row."""
        found = []
        for query in range(len(self._held_Q)):
            self._thin(query)
            found.append(np.sort(self._row_QC[query, : self._held_Q[query]]))
        return found

    def _thin(self, query: int) -> None:
        held = int(self._held_Q[query])
        if held > self._k:
            score_C, row_C = self._score_QC[query, :held], self._row_QC[query, :held]
            floor = np.float32(np.partition(score_C, held - self._k)[held - self._k] - self._slack)
            kept = score_C >= floor
            held = int(np.count_nonzero(kept))
            score_C[:held], row_C[:held] = score_C[kept], row_C[kept]
            self._floor_Q[query] = floor
        self._held_Q[query] = held
        self._thin_Q[query] = 2 * held + _SPARE


def _blocks(place: Place, count: int, queries: int) -> Iterator[_Block]:
    """Each block with a row that counts, vectors as float32.

    Where few count they are gathered; else all are multiplied, and those that do not count are masked. Gathering moves a row three times,
    which a lone query notices and many do not.
    """
    vectors, passing = place.vectors, place.passing
    if passing is not None and count == len(vectors):
        passing = None
    if passing is not None and count <= (0.3 if queries < 16 else 0.7) * len(vectors):
        row_N = np.flatnonzero(passing)
        for start in range(0, count, _ROWS_GATHERED):
            row_B = row_N[start : start + _ROWS_GATHERED]
            yield _Block(0, row_B, vectors[row_B].astype(np.float32, copy=False), _NO_MASK)
        return
    for start in range(0, len(vectors), _ROWS_PER_BLOCK):
        mask_B = _NO_MASK if passing is None else passing[start : start + _ROWS_PER_BLOCK]
        if len(mask_B) and not mask_B.any():
            continue
        vector_BD = np.asarray(vectors[start : start + _ROWS_PER_BLOCK]).astype(np.float32, copy=False)
        yield _Block(start, _NO_ROWS, vector_BD, mask_B)


def _ranked(
    query_QD: np.ndarray, places: Sequence[Place], starts: np.ndarray, rows: Sequence[np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    queries = len(query_QD)
    score_QK, place_QK, row_QK = np.empty((queries, k), np.float32), np.empty((queries, k), np.int32), np.empty((queries, k), np.int64)
    for query, row_N in enumerate(rows):
        place_N = np.searchsorted(starts, row_N, "right") - 1
        score_N = np.empty(len(row_N), np.float32)
        for number in np.unique(place_N):
            among = place_N == number
            score_N[among] = scores(places[number].vectors, row_N[among] - starts[number], query_QD[query])
        order = np.argsort(-score_N, kind="stable")[:k]  # row_N ascends, so ties keep their places' order
        score_QK[query], place_QK[query], row_QK[query] = score_N[order], place_N[order], row_N[order] - starts[place_N[order]]
    return score_QK, place_QK, row_QK


def scores(vectors: np.ndarray, row_N: np.ndarray, query_D: np.ndarray) -> np.ndarray:
    """The scores of some rows with a query, float32 [N], each a sum in one order."""
    found = np.empty(len(row_N), np.float32)
    if vectors.dtype == np.float32 and vectors.flags.c_contiguous:
        _dots(np.asarray(vectors), row_N, query_D, found)
        return found
    for start in range(0, len(row_N), _ROWS_GATHERED):
        row_B = row_N[start : start + _ROWS_GATHERED]
        _dots(vectors[row_B].astype(np.float32), np.arange(len(row_B)), query_D, found[start : start + _ROWS_GATHERED])
    return found


@numba.njit(nogil=True, cache=True)
def _sift(  # noqa: PLR0917
    score_QB: np.ndarray,
    mask_B: np.ndarray,
    first: int,
    start: int,
    row_B: np.ndarray,
    group_N: np.ndarray,
    kept_QT: np.ndarray,
    k: int,
    floor_Q: np.ndarray,
    held_Q: np.ndarray,
    score_QC: np.ndarray,
    row_QC: np.ndarray,
) -> None:
    """Append the scores of a block that reach a query's floor, of twins the first k."""
    masked, listed, grouped = mask_B.shape[0] > 0, row_B.shape[0] > 0, group_N.shape[0] > 0
    for query in range(score_QB.shape[0]):
        floor, held = floor_Q[query], held_Q[query]
        for at in range(score_QB.shape[1]):
            score = score_QB[query, at]
            if score >= floor and (not masked or mask_B[at]):
                row = row_B[at] if listed else first + at
                group = group_N[row] if grouped else -1
                if 0 <= group < kept_QT.shape[1]:  # a group beyond is one that came while we search
                    if kept_QT[query, group] >= k:
                        continue
                    kept_QT[query, group] += 1
                score_QC[query, held] = score
                row_QC[query, held] = start + row
                held += 1
        held_Q[query] = held


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dots(vector_ND: np.ndarray, row_B: np.ndarray, query_D: np.ndarray, found_B: np.ndarray) -> None:
    """Sums in float64, in whatever order the compiler makes of it: the same for every row."""
    wide_D = query_D.astype(np.float64)
    for at in range(row_B.shape[0]):
        row = vector_ND[row_B[at]]
        total = 0.0
        for d in range(wide_D.shape[0]):
            total += np.float64(row[d]) * wide_D[d]
        found_B[at] = np.float32(total)
