"""Scores of few queries by 8-bit codes, and how far from the scores of the vectors themselves they may be.

A vector differs from what its code says by at most `error`, so a unit query's scores with the two differ by no more (Cauchy and Schwarz),
but for the rounding of sums. Knows codes and queries; not what is made of the scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np

from reid_ray.gallery.sealed.codes import Codes

_TOGETHER = 4  # queries for which a code is read once
_WORTH_A_THREAD = 1 << 25  # products, some milliseconds
_ROWS_AT_ONCE = 1 << 20
_NO_MASK = np.zeros(0, np.bool_)


class CodeScores:
    """Some queries, as codes of one place are asked.

    Args:
        query_QD: float32, contiguous.
        codes: of the vectors.
    """

    def __init__(self, query_QD: np.ndarray, codes: Codes) -> None:
        self._codes, self._queries = codes, len(query_QD)
        # Three queries take longer than four.
        spare = int(self._queries % _TOGETHER == _TOGETHER - 1)
        self._weight_PD = np.concatenate([query_QD * codes.step_D, np.zeros((spare, query_QD.shape[1]), np.float32)])
        self._offset_P = np.zeros(len(self._weight_PD), np.float32)
        self.error, rounding = 0.0, (query_QD.shape[1] + 4) * 2.0**-24
        """A score differs from that of the vector by at most `error`."""
        for number, query_D in enumerate(query_QD.astype(np.float64)):
            self._offset_P[number] = query_D @ codes.wide_middle
            reached = rounding * float(np.abs(query_D) @ codes.reach)
            self.error = max(self.error, math.sqrt(query_D @ query_D) * codes.error + reached)

    def blocks(self, passing: np.ndarray | None, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Scores of all rows, `rows` at a time: where the block begins, and float32 [B, P], of P a column for each query and perhaps more.

        Those of rows that do not pass are any number.
        """
        count, queries = len(self._codes.code_ND), len(self._weight_PD)
        threads = _threads(self._codes.code_ND.size * queries)
        if threads == 1:
            for start in range(0, count, rows):
                score_BP = np.empty((min(rows, count - start), queries), np.float32)
                self._fill(start, passing, score_BP)
                yield start, score_BP
            return
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, count, _ROWS_AT_ONCE):
                score_BP = np.empty((min(_ROWS_AT_ONCE, count - start), queries), np.float32)
                parts = np.array_split(score_BP, threads)
                starts = itertools.accumulate(map(len, parts), initial=start)
                list(pool.map(self._fill, starts, itertools.repeat(passing), parts))
                for at in range(0, len(score_BP), rows):
                    yield start + at, score_BP[at : at + rows]

    def _fill(self, start: int, passing: np.ndarray | None, score_BP: np.ndarray) -> None:
        stop = start + len(score_BP)
        mask_B = _NO_MASK if passing is None else passing[start:stop]
        _score(self._codes.code_ND[start:stop], mask_B, self._weight_PD, self._offset_P, score_BP)


def _threads(products: int) -> int:
    """As many threads as are worth their while, and as BLAS may have: whoever limits it means searches."""
    worth = products // _WORTH_A_THREAD
    return min(worth, max((library.num_threads for library in _blas()), default=1)) if worth > 1 else 1


@cache
def _blas() -> tuple[Any, ...]:
    from threadpoolctl import ThreadpoolController

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _score(code_BD: np.ndarray, mask_B: np.ndarray, weight_PD: np.ndarray, offset_P: np.ndarray, score_BP: np.ndarray) -> None:
    """Scores of the rows that pass (an empty mask: all)."""
    masked, queries = mask_B.shape[0] > 0, weight_PD.shape[0]
    for row in range(code_BD.shape[0]):
        if masked and not mask_B[row]:
            continue
        code_D = code_BD[row]
        query = 0
        while query + 4 <= queries:
            one_D, two_D, three_D, four_D = weight_PD[query], weight_PD[query + 1], weight_PD[query + 2], weight_PD[query + 3]
            one, two, three, four = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for d in range(code_D.shape[0]):
                code = np.float32(code_D[d])
                one += code * one_D[d]
                two += code * two_D[d]
                three += code * three_D[d]
                four += code * four_D[d]
            score_BP[row, query], score_BP[row, query + 1] = one + offset_P[query], two + offset_P[query + 1]
            score_BP[row, query + 2], score_BP[row, query + 3] = three + offset_P[query + 2], four + offset_P[query + 3]
            query += 4
        while query < queries:
            one_D = weight_PD[query]
            one = np.float32(0)
            for d in range(code_D.shape[0]):
                one += np.float32(code_D[d]) * one_D[d]
            score_BP[row, query] = one + offset_P[query]
            query += 1
