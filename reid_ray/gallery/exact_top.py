"""Exact nearest neighbours over blocks of vectors, some of which are masked: BLAS finds candidates, a fixed order of sums ranks them.

A score is the sum of products in float64 in one order, rounded to float32: it depends on neither the batch nor the place of a vector, so
equal vectors tie exactly, and ties keep the order of their places. BLAS's float32 sums are off by at most 2 D x 2^-24 for unit vectors;
whatever comes closer than that to the k-th place is summed again. Knows numbers; not items, files or filters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numba
import numpy as np

_ROWS_PER_BLOCK = 8_192  # 16 MB of 512 float32, and for each query 32 KB of scores
_GATHERED_SHARE = 0.4  # up to this share of a place's rows are gathered; of more, all are multiplied and the others masked
_SPARE = 256  # candidates beyond k before they are thinned out


@dataclass(frozen=True)
class Place:
    """Vectors in a row, and which of them count.

    vectors: float32 or float16 [N, D].
    passing: N truth values, or ascending row numbers, or None for all.
    """

    vectors: np.ndarray
    passing: np.ndarray | None = None


def exact_top(query_QD: np.ndarray, places: Sequence[Place], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best vectors of each query, best first: float32 scores, int32 numbers of places, int64 rows in them, [Q, K] each.

    K is k, or how many vectors count where that is less. Equal scores are in the order of place and row.
    """
    query_QD = np.ascontiguousarray(query_QD, np.float32)
    queries, dim = query_QD.shape
    counts = [_count(place) for place in places]
    k = min(k, sum(counts))
    if not queries or not k:
        return np.zeros((queries, 0), np.float32), np.zeros((queries, 0), np.int32), np.zeros((queries, 0), np.int64)
    slack = np.float32(4 * dim * 2.0**-24)  # of two sums, and for vectors a little longer than 1
    shortlist = [_Shortlist(k, slack) for _ in range(queries)]
    floor_Q = np.full(queries, -np.inf, np.float32)
    starts = np.cumsum([0, *(len(place.vectors) for place in places)])
    for start, place, count in zip(starts, places, counts, strict=False):
        if not count:
            continue
        for row_B, vector_BD, mask_B in _blocks(place, count):
            score_QB = query_QD @ vector_BD.T
            if mask_B is not None:
                score_QB[:, ~mask_B] = -np.inf
            for query in np.flatnonzero(score_QB.max(axis=1) >= floor_Q):
                above = np.flatnonzero(score_QB[query] >= floor_Q[query]) if floor_Q[query] > -np.inf else _finite(score_QB[query])
                floor_Q[query] = shortlist[query].add(
                    score_QB[query, above], start + row_B + above if isinstance(row_B, int) else start + row_B[above]
                )
    return _ranked(query_QD, places, starts, [each.rows() for each in shortlist], k)


class _Shortlist:
    """Rows that may be among the best k of a query."""

    def __init__(self, k: int, slack: np.float32) -> None:
        self._k, self._slack = k, slack
        self._scores: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._held, self._thin_at = 0, k + _SPARE
        self._floor = np.float32(-np.inf)

    def add(self, score_N: np.ndarray, row_N: np.ndarray) -> np.float32:
        """Take candidates; returns the score below which none is wanted."""
        self._scores.append(score_N)
        self._rows.append(row_N)
        self._held += len(score_N)
        if self._held >= self._thin_at:
            self._thin()
        return self._floor

    def rows(self) -> np.ndarray:
        """Candidates, by row."""
        self._thin()
        return np.sort(self._rows[0])

    def _thin(self) -> None:
        score_N, row_N = np.concatenate(self._scores), np.concatenate(self._rows)
        if len(score_N) > self._k:
            self._floor = np.float32(np.partition(score_N, len(score_N) - self._k)[len(score_N) - self._k] - self._slack)
            kept = score_N >= self._floor
            score_N, row_N = score_N[kept], row_N[kept]
        self._scores, self._rows, self._held = [score_N], [row_N], len(score_N)
        self._thin_at = 2 * len(score_N) + _SPARE


def _blocks(place: Place, count: int) -> Iterable[tuple[int | np.ndarray, np.ndarray, np.ndarray | None]]:
    """(first row or rows, their vectors as float32, mask or None) of each block with a row that counts."""
    vectors, passing = place.vectors, place.passing
    mask = passing if passing is not None and passing.dtype == np.bool_ else None
    if passing is not None and count <= _GATHERED_SHARE * len(vectors):
        rows = np.flatnonzero(passing) if mask is not None else passing
        for start in range(0, count, _ROWS_PER_BLOCK):
            row_B = rows[start : start + _ROWS_PER_BLOCK]
            yield row_B, vectors[row_B].astype(np.float32, copy=False), None
        return
    if passing is not None and mask is None:
        mask = np.zeros(len(vectors), np.bool_)
        mask[passing] = True
    for start in range(0, len(vectors), _ROWS_PER_BLOCK):
        mask_B = mask[start : start + _ROWS_PER_BLOCK] if mask is not None and count < len(vectors) else None
        if mask_B is not None and not mask_B.any():
            continue
        yield start, np.asarray(vectors[start : start + _ROWS_PER_BLOCK]).astype(np.float32, copy=False), mask_B


def _count(place: Place) -> int:
    if place.passing is None:
        return len(place.vectors)
    return int(np.count_nonzero(place.passing)) if place.passing.dtype == np.bool_ else len(place.passing)


def _finite(score_B: np.ndarray) -> np.ndarray:
    return np.flatnonzero(score_B > -np.inf)


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
    for start in range(0, len(row_N), _ROWS_PER_BLOCK):
        row_B = row_N[start : start + _ROWS_PER_BLOCK]
        _dots(vectors[row_B].astype(np.float32, copy=False), query_D, found[start : start + _ROWS_PER_BLOCK])
    return found


@numba.njit(nogil=True, cache=True)
def _dots(vector_ND: np.ndarray, query_D: np.ndarray, found_N: np.ndarray) -> None:
    """Eight sums side by side, then added: one order for every row, and quick."""
    dim = query_D.shape[0]
    whole = dim // 8 * 8
    for row in range(vector_ND.shape[0]):
        sum_8 = np.zeros(8, np.float64)
        for start in range(0, whole, 8):
            for lane in range(8):
                sum_8[lane] += np.float64(vector_ND[row, start + lane]) * np.float64(query_D[start + lane])
        total = 0.0
        for lane in range(8):
            total += sum_8[lane]
        for at in range(whole, dim):
            total += np.float64(vector_ND[row, at]) * np.float64(query_D[at])
        found_N[row] = np.float32(total)
