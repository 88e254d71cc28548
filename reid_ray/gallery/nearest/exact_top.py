"""Exact nearest neighbours over blocks of vectors, some of which are masked: 8-bit codes or BLAS find candidates, a fixed order of sums
ranks them.

A score is the sum of products in float64 in one order, rounded to float32: it depends on neither the batch nor the place of a vector, so
equal vectors tie exactly, and ties keep the order of their places. BLAS's float32 sums of unit vectors are off by at most D x 2^-24 each,
and codes say how far they are; whatever comes closer than that to the k-th place is summed again. Of vectors that are known to be equal
only the first k are looked at: a later one cannot come before them. Knows numbers; not items, files or filters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numba
import numpy as np

from reid_ray.gallery.nearest.code_scores import CodeScores
from reid_ray.gallery.nearest.scored_block import NO_MASK, NO_ROWS, ScoredBlock
from reid_ray.gallery.sealed.codes import Codes
from reid_ray.gallery.sealed.twins import NO_TWINS, Twins

_ROWS_PER_BLOCK = 8_192  # 16 MB of 512 float32, and for each query 32 KB of scores
_SCORES_PER_BLOCK = 65_536  # of few queries, a block has more rows
_FEW = {"float32": 32, "float16": 48}  # queries for which codes take less than BLAS, which wants float32
_ROWS_A_HIT = 16  # codes are worth their while where there are so many for each hit that is wanted: some are looked at twice
_MANY, _MOST_ALIKE = 4_096, 8  # candidates a query, or a part of all rows: with more, BLAS takes less time
_LIKED_BY_BLAS = 4  # queries: for one or two fewer it takes as long, or longer
_ROWS_GATHERED = 2_048  # copied rows stay in the second-level cache until they are multiplied
_SPARE = 256  # candidates beyond k before they are thinned out


@dataclass(frozen=True)
class Place:
    """Vectors in a row, and which of them count.

    vectors: float32 or float16 [N, D].
    passing: N truth values, or None for all.
    twins: which of them are equal, as far as that is known; it saves time and changes nothing.
    codes: of the vectors, where there are any; they save time, too.
    """

    vectors: np.ndarray
    passing: np.ndarray | None = None
    twins: Twins = NO_TWINS
    codes: Codes | None = None


def exact_top(query_QD: np.ndarray, places: Sequence[Place], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best vectors of each query, best first: float32 scores, int32 numbers of places, int64 rows in them, [Q, K] each.

    K is k, or how many vectors count where that is less. Equal scores are in the order of place and row.
    """
    query_QD = np.ascontiguousarray(query_QD, np.float32)
    queries = len(query_QD)
    counts = [len(place.vectors) if place.passing is None else int(np.count_nonzero(place.passing)) for place in places]
    k = min(k, sum(counts))
    if not queries or not k:
        return np.zeros((queries, 0), np.float32), np.zeros((queries, 0), np.int32), np.zeros((queries, 0), np.int64)
    if not all(counts):  # as a buffer into which nothing was added
        counting = [number for number, count in enumerate(counts) if count]
        score_QK, place_QK, row_QK = exact_top(query_QD, [places[number] for number in counting], k)
        return score_QK, np.asarray(counting, np.int32)[place_QK], row_QK
    starts = np.cumsum([0, *(len(place.vectors) for place in places)])
    candidates = _candidates(query_QD, places, counts, starts, k=k, by_codes=True)
    if candidates is None:
        candidates = _candidates(query_QD, places, counts, starts, k=k, by_codes=False)
    assert candidates is not None
    return _ranked(query_QD, places, starts, *candidates, k=k)


def _candidates(
    query_QD: np.ndarray, places: Sequence[Place], counts: Sequence[int], starts: np.ndarray, *, k: int, by_codes: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """What may be among the best of each query: numbers of queries and rows; None where codes do not tell much of it apart."""
    queries, dim = query_QD.shape
    rounding = 2 * dim * 2.0**-24  # of two sums, and for vectors a little longer than 1
    shortlists, query_DP, many = _Shortlists(queries, k), _padded(query_QD).T, max(_MANY * queries, sum(counts) // _MOST_ALIKE)
    for start, place, count in zip(starts, places, counts, strict=False):
        passing = None if count == len(place.vectors) else place.passing
        kept_QT = np.zeros((queries, place.twins.groups), np.int32)  # memory is touched where there are twins among the best
        if (codes := _asked(query_QD, place, count, k) if by_codes else None) is None:
            for block in _blocks(place.vectors, passing, count, query_DP, queries):
                shortlists.add(block, rounding, int(start), place.twins.group_N, kept_QT)
            continue
        for block in codes.blocks(passing, count, _rows_per_block(queries)):
            shortlists.add(block, rounding + codes.error, int(start), place.twins.group_N, kept_QT)
            if shortlists.held > many:
                return None
    return shortlists.candidates()


def _asked(query_QD: np.ndarray, place: Place, count: int, k: int) -> CodeScores | None:
    """The queries as codes are asked; None where there are none, or BLAS takes less time."""
    few = len(query_QD) <= _FEW[place.vectors.dtype.name] and len(query_QD) * k * _ROWS_A_HIT <= count
    return CodeScores(query_QD, place.codes) if place.codes is not None and few else None


class _Shortlists:
    """For each query the rows that may be among its best k: the least and the most that the score of each may be."""

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        room = 2 * (k + _SPARE) + _rows_per_block(queries)
        self._low_QC, self._high_QC = np.empty((queries, room), np.float32), np.empty((queries, room), np.float32)
        self._row_QC = np.empty((queries, room), np.int64)
        self._held_Q, self._thin_Q = np.zeros(queries, np.int64), np.full(queries, k + _SPARE, np.int64)
        self._floor_Q = np.full(queries, -np.inf, np.float32)

    @property
    def held(self) -> int:
        """How many candidates all queries have now."""
        return int(self._held_Q.sum())

    def add(self, block: ScoredBlock, error: float, start: int, group_N: np.ndarray, kept_QT: np.ndarray) -> None:
        """Take the candidates of a block of the place that begins at `start`, whose scores are off by at most `error`.

        kept_QT counts those of each group of twins.
        """
        most = int(self._held_Q.max()) + len(block.score_BP)
        if most > self._low_QC.shape[1]:  # so many tie that thinning does not help
            self._low_QC, self._high_QC, self._row_QC = (np.pad(each, ((0, 0), (0, most))) for each in self._arrays)
        held = self._thin_Q, self._floor_Q, self._held_Q, *self._arrays
        _sift(block.score_BP, np.float32(error), block.mask_B, block.first, start, block.row_B, group_N, kept_QT, self._k, *held)

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """The candidates of all queries, by query and row: numbers of queries and rows."""
        return _thin_all(self._k, self._held_Q, *self._arrays)

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._low_QC, self._high_QC, self._row_QC


def _rows_per_block(queries: int) -> int:
    return max(_ROWS_PER_BLOCK, _SCORES_PER_BLOCK // queries)


def _padded(query_QD: np.ndarray) -> np.ndarray:
    """Queries with zeros behind them, so many that BLAS is quick; a lone one is a vector, with which it is quickest."""
    queries, dim = query_QD.shape
    if queries == 1 or queries % _LIKED_BY_BLAS == 0:
        return query_QD
    padded_PD = np.zeros((-(-queries // _LIKED_BY_BLAS) * _LIKED_BY_BLAS, dim), np.float32)
    padded_PD[:queries] = query_QD
    return padded_PD


def _blocks(vectors: np.ndarray, passing: np.ndarray | None, count: int, query_DP: np.ndarray, queries: int) -> Iterator[ScoredBlock]:
    """Each block with a row that counts, by BLAS: vectors times queries, which takes two thirds of the time of queries times vectors.

    Where few count they are gathered; else all are multiplied, and those that do not count are masked. Gathering moves a row three times,
    which a lone query notices and many do not.
    """
    if passing is not None and count <= (0.3 if queries < 16 else 0.7) * len(vectors):
        row_N = np.flatnonzero(passing)
        for start in range(0, count, _ROWS_GATHERED):
            row_B = row_N[start : start + _ROWS_GATHERED]
            yield ScoredBlock(0, row_B, vectors[row_B].astype(np.float32, copy=False) @ query_DP, NO_MASK)
        return
    rows = _rows_per_block(queries) if vectors.dtype == np.float32 else _ROWS_PER_BLOCK  # others are copied
    for start in range(0, len(vectors), rows):
        mask_B = NO_MASK if passing is None else passing[start : start + rows]
        if len(mask_B) and not mask_B.any():
            continue
        vector_BD = np.asarray(vectors[start : start + rows]).astype(np.float32, copy=False)
        yield ScoredBlock(start, NO_ROWS, vector_BD @ query_DP, mask_B)


def _ranked(
    query_QD: np.ndarray, places: Sequence[Place], starts: np.ndarray, query_M: np.ndarray, row_M: np.ndarray, *, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best k of M candidates of all queries, at least k of each."""
    if len(places) == 1:
        place_M, own_M, score_M = np.zeros(len(row_M), np.int32), row_M, scores(places[0].vectors, row_M, query_QD, query_M)
    else:
        place_M = (np.searchsorted(starts, row_M, "right") - 1).astype(np.int32)
        own_M, score_M = row_M - starts[place_M], np.empty(len(row_M), np.float32)
        for number in np.unique(place_M):
            among = place_M == number
            score_M[among] = scores(places[number].vectors, own_M[among], query_QD, query_M[among])
    best_QK = _best(score_M, query_M, len(query_QD), k)
    return score_M[best_QK], place_M[best_QK], own_M[best_QK]


def scores(vectors: np.ndarray, row_N: np.ndarray, query_QD: np.ndarray, query_N: np.ndarray) -> np.ndarray:
    """The scores of some rows, each with the query of that number, float32 [N], each a sum in one order."""
    found = np.empty(len(row_N), np.float32)
    if vectors.dtype == np.float32 and vectors.flags.c_contiguous:
        _dots(np.asarray(vectors), row_N, query_QD, query_N, found)
        return found
    for start in range(0, len(row_N), _ROWS_GATHERED):
        block = slice(start, start + _ROWS_GATHERED)
        gathered = vectors[row_N[block]].astype(np.float32)
        _dots(gathered, np.arange(len(gathered)), query_QD, query_N[block], found[block])
    return found


@numba.njit(nogil=True, cache=True)
def _thinned(low_C: np.ndarray, high_C: np.ndarray, row_C: np.ndarray, held: int, k: int) -> tuple[int, np.float32]:
    """Drop the candidates that cannot be among the best k any more: how many are left, and what a further one must reach."""
    if held <= k:
        return held, np.float32(-np.inf)
    floor = np.float32(np.partition(low_C[:held], held - k)[held - k])
    kept = 0
    for at in range(held):
        if high_C[at] >= floor:
            low_C[kept], high_C[kept], row_C[kept] = low_C[at], high_C[at], row_C[at]
            kept += 1
    return kept, floor


@numba.njit(nogil=True, cache=True)
def _thin_all(k: int, held_Q: np.ndarray, low_QC: np.ndarray, high_QC: np.ndarray, row_QC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop what can be no query's best, and put the rest behind each other: numbers of queries and rows."""
    for query in range(held_Q.shape[0]):
        held_Q[query], _ = _thinned(low_QC[query], high_QC[query], row_QC[query], held_Q[query], k)
    query_M, row_M = np.empty(held_Q.sum(), np.int64), np.empty(held_Q.sum(), np.int64)
    start = 0
    for query in range(held_Q.shape[0]):
        end = start + held_Q[query]
        query_M[start:end], row_M[start:end] = query, row_QC[query, : held_Q[query]]
        start = end
    return query_M, row_M


@numba.njit(nogil=True, cache=True)
def _best(score_M: np.ndarray, query_M: np.ndarray, queries: int, k: int) -> np.ndarray:
    """The places of each query's best k, best first, equal scores in the order in which they are given."""
    best_QK = np.empty((queries, k), np.int64)
    start = 0
    for query in range(queries):
        end = start
        while end < query_M.shape[0] and query_M[end] == query:
            end += 1
        best_QK[query] = start + np.argsort(-score_M[start:end], kind="mergesort")[:k]
        start = end
    return best_QK


@numba.njit(nogil=True, cache=True)
def _sift(  # noqa: PLR0917
    score_BP: np.ndarray,
    error: np.float32,
    mask_B: np.ndarray,
    first: int,
    start: int,
    row_B: np.ndarray,
    group_N: np.ndarray,
    kept_QT: np.ndarray,
    k: int,
    thin_Q: np.ndarray,
    floor_Q: np.ndarray,
    held_Q: np.ndarray,
    low_QC: np.ndarray,
    high_QC: np.ndarray,
    row_QC: np.ndarray,
) -> None:
    """Append the rows of a block that may reach a query's floor, of twins the first k; the floor rises on the way."""
    masked, listed, grouped = mask_B.shape[0] > 0, row_B.shape[0] > 0, group_N.shape[0] > 0
    queries = floor_Q.shape[0]
    for at in range(score_BP.shape[0]):
        if masked and not mask_B[at]:
            continue
        reached = 0  # counted, so that the compiler compares many at once
        for query in range(queries):
            reached += score_BP[at, query] + error >= floor_Q[query]
        if not reached:
            continue
        row = row_B[at] if listed else first + at
        group = group_N[row] if grouped else -1
        for query in range(queries):
            score, held = score_BP[at, query], held_Q[query]
            if not score + error >= floor_Q[query]:
                continue
            if 0 <= group < kept_QT.shape[1]:  # a group beyond is one that came while we search
                if kept_QT[query, group] >= k:
                    continue
                kept_QT[query, group] += 1
            low_QC[query, held], high_QC[query, held] = score - error, score + error
            row_QC[query, held] = start + row
            held_Q[query] = held + 1
            if held_Q[query] >= thin_Q[query]:
                held_Q[query], floor_Q[query] = _thinned(low_QC[query], high_QC[query], row_QC[query], held_Q[query], k)
                thin_Q[query] = 2 * held_Q[query] + _SPARE


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dots(vector_ND: np.ndarray, row_B: np.ndarray, query_QD: np.ndarray, query_B: np.ndarray, found_B: np.ndarray) -> None:
    """Sums in float64, in whatever order the compiler makes of it: the same for every row."""
    wide_D, widened = np.zeros(query_QD.shape[1], np.float64), -1
    for at in range(row_B.shape[0]):
        row = vector_ND[row_B[at]]
        if query_B[at] != widened:
            widened = query_B[at]
            for d in range(wide_D.shape[0]):
                wide_D[d] = query_QD[widened, d]
        total = 0.0
        for d in range(wide_D.shape[0]):
            total += np.float64(row[d]) * wide_D[d]
        found_B[at] = np.float32(total)
