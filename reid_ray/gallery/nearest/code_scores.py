"""Scores of few queries by 8-bit codes, and how far from the scores of the vectors themselves they may be.

A vector differs from what its code says by at most `error`, so scores with the two differ by no more times the query's length (Cauchy and
Schwarz), but for the rounding of sums. Knows codes and queries; not what is made of the scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np

from reid_ray.gallery.nearest.scored_block import NO_MASK, NO_ROWS, ScoredBlock
from reid_ray.gallery.sealed.codes import Codes

_TOGETHER = 4  # queries for which a code is read once
_WORTH_A_THREAD = 1 << 25  # products, some milliseconds
_SCORES_AT_ONCE = 1 << 22  # of all threads
_LISTED_SHARE = 0.1  # of rows that pass; where it is less they are listed, which is quicker than to look at every row whether it passes


class CodeScores:
    """Some queries, as codes of one place are asked.

    Args:
        query_QD: float32, contiguous.
        codes: of the vectors.

    Attributes:
        error: a score differs from that of the vector by at most so much.
    """

    def __init__(self, query_QD: np.ndarray, codes: Codes) -> None:
        self._codes, queries = codes, len(query_QD)
        # Three queries take longer than four.
        spare = int(queries % _TOGETHER == _TOGETHER - 1)
        self._weight_PD = np.concatenate([query_QD * codes.step_D, np.zeros((spare, query_QD.shape[1]), np.float32)])
        self._offset_P = np.zeros(len(self._weight_PD), np.float32)
        wide_QD = query_QD.astype(np.float64)
        self._offset_P[:queries] = wide_QD @ codes.wide_middle
        length_Q, reached_Q = np.sqrt((wide_QD * wide_QD).sum(axis=1)), np.abs(wide_QD) @ codes.reach
        self.error = float((length_Q * codes.error + (query_QD.shape[1] + 4) * 2.0**-24 * reached_Q).max())

    def blocks(self, passing: np.ndarray | None, count: int, rows: int) -> Iterator[ScoredBlock]:
        """Scores of the `count` rows that pass (None: all), at most `rows` at a time."""
        row_N, mask_N = NO_ROWS, NO_MASK
        total = len(self._codes.code_ND)
        if passing is not None and count <= _LISTED_SHARE * total:
            row_N, total = np.flatnonzero(passing), count
        elif passing is not None:
            mask_N = passing
        for start, score_BP in self._scores(row_N, mask_N, total, rows):
            stop = start + len(score_BP)
            yield ScoredBlock(start, row_N[start:stop], score_BP, mask_N[start:stop])

    def _scores(self, row_N: np.ndarray, mask_N: np.ndarray, total: int, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Where each block begins, and its scores; of many rows by threads."""
        queries, threads = len(self._weight_PD), _threads(total * self._weight_PD.size)
        if threads == 1:
            for start in range(0, total, rows):
                score_BP = np.empty((min(rows, total - start), queries), np.float32)
                self._fill(start, row_N, mask_N, score_BP)
                yield start, score_BP
            return
        at_once = max(threads * rows, _SCORES_AT_ONCE // queries)
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, total, at_once):
                score_BP = np.empty((min(at_once, total - start), queries), np.float32)
                parts = np.array_split(score_BP, threads)
                starts = itertools.accumulate(map(len, parts), initial=start)
                list(pool.map(self._fill, starts, itertools.repeat(row_N), itertools.repeat(mask_N), parts))
                for at in range(0, len(score_BP), rows):
                    yield start + at, score_BP[at : at + rows]

    def _fill(self, start: int, row_N: np.ndarray, mask_N: np.ndarray, score_BP: np.ndarray) -> None:
        stop, code_ND = start + len(score_BP), self._codes.code_ND
        if len(row_N):
            _score(code_ND, row_N[start:stop], NO_MASK, self._weight_PD, self._offset_P, score_BP)
        else:
            _score(code_ND[start:stop], NO_ROWS, mask_N[start:stop], self._weight_PD, self._offset_P, score_BP)


def _threads(products: int) -> int:
    """As many threads as are worth their while, and as BLAS may have: whoever limits it means searches.

    Libraries that were loaded after the limit was set know nothing of it.
    """
    worth = products // _WORTH_A_THREAD
    return max(1, min(worth, min((library.num_threads for library in _blas()), default=1))) if worth > 1 else 1


@cache
def _blas() -> tuple[Any, ...]:
    from threadpoolctl import ThreadpoolController

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _score(  # noqa: PLR0917
    code_ND: np.ndarray, row_B: np.ndarray, mask_B: np.ndarray, weight_PD: np.ndarray, offset_P: np.ndarray, score_BP: np.ndarray
) -> None:
    """Scores of the rows that are listed, or of all that pass (an empty mask: all), by twos: what is read of a query serves both."""
    masked, listed, count, queries = mask_B.shape[0] > 0, row_B.shape[0] > 0, score_BP.shape[0], weight_PD.shape[0]
    at = 0
    while at < count:
        if masked and not mask_B[at]:
            at += 1
            continue
        other = at + 1
        while masked and other < count and not mask_B[other]:
            other += 1
        if other == count:
            other = at  # the last one, by itself
        left_D, right_D = code_ND[row_B[at] if listed else at], code_ND[row_B[other] if listed else other]
        query = 0
        while query + 4 <= queries:
            weight_1, weight_2, weight_3, weight_4 = weight_PD[query], weight_PD[query + 1], weight_PD[query + 2], weight_PD[query + 3]
            left_1, left_2, left_3, left_4 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            right_1, right_2, right_3, right_4 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for d in range(left_D.shape[0]):
                left, right = np.float32(left_D[d]), np.float32(right_D[d])
                left_1 += left * weight_1[d]
                left_2 += left * weight_2[d]
                left_3 += left * weight_3[d]
                left_4 += left * weight_4[d]
                right_1 += right * weight_1[d]
                right_2 += right * weight_2[d]
                right_3 += right * weight_3[d]
                right_4 += right * weight_4[d]
            score_BP[at, query], score_BP[at, query + 1] = left_1 + offset_P[query], left_2 + offset_P[query + 1]
            score_BP[at, query + 2], score_BP[at, query + 3] = left_3 + offset_P[query + 2], left_4 + offset_P[query + 3]
            score_BP[other, query], score_BP[other, query + 1] = right_1 + offset_P[query], right_2 + offset_P[query + 1]
            score_BP[other, query + 2], score_BP[other, query + 3] = right_3 + offset_P[query + 2], right_4 + offset_P[query + 3]
            query += 4
        while query < queries:
            weight_1 = weight_PD[query]
            left_1, right_1 = np.float32(0), np.float32(0)
            for d in range(left_D.shape[0]):
                left_1 += np.float32(left_D[d]) * weight_1[d]
                right_1 += np.float32(right_D[d]) * weight_1[d]
            score_BP[at, query], score_BP[other, query] = left_1 + offset_P[query], right_1 + offset_P[query]
            query += 1
        at = other + 1
