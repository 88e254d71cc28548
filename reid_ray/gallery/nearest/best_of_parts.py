"""The best items of all parts of a gallery: each part searched exactly, or by candidates whose stored vectors are compared exactly.

The filter planner: where few items pass, or a part has no accelerator, all that passes is compared; else the accelerator looks
as far as the filter asks of it. Knows vectors and masks; not items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reid_ray.gallery.config import NearestConfig
from reid_ray.gallery.nearest.exact_top import Place, exact_top, scores

_Hits = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores, places, rows


class CandidateSource(Protocol):
    """Interface (protocol) of what names rows of a part among which the best are: an index of it, or a GPU that compares them all."""

    def candidates(
        self, query_QD: np.ndarray, wanted: int, passing_N: np.ndarray | None, config: NearestConfig, /
    ) -> list[np.ndarray | None]:
        """Rows for each query, ascending, at least `wanted` or all that pass; None where the exact search is to look itself."""
        ...


@dataclass(frozen=True)
class Searched:
    """A part: its vectors, and what names candidates among them, if anything does."""

    place: Place
    accelerator: CandidateSource | None = None


def best_of_parts(query_QD: np.ndarray, parts: Sequence[Searched], k: int, config: NearestConfig) -> _Hits:
    """The best vectors of each query, best first: float32 scores, int32 numbers of parts, int64 rows in them, [Q, K] each.

    K is k, or how many vectors count where that is less. Equal scores are in the order of part and row. Exact if no part has an
    accelerator; scores always are.
    """
    if all(part.accelerator is None for part in parts):
        return exact_top(query_QD, [part.place for part in parts], k)
    found: list[list[_Hits]] = [[] for _ in query_QD]
    exactly: dict[tuple[int, ...], list[int]] = {}  # queries -> parts in which these are searched exactly
    everyone = tuple(range(len(query_QD)))
    for number, part in enumerate(parts):
        if part.accelerator is None:
            exactly.setdefault(everyone, []).append(number)
            continue
        left = []
        for query, row_C in enumerate(part.accelerator.candidates(query_QD, k, part.place.passing, config)):
            if row_C is None:
                left.append(query)
            else:
                score_C = scores(part.place.vectors, row_C, query_QD, np.full(len(row_C), query))
                found[query].append((score_C, np.full(len(row_C), number, np.int32), row_C))
        if left:
            exactly.setdefault(tuple(left), []).append(number)
    for queries, numbers in exactly.items():
        score_QK, place_QK, row_QK = exact_top(query_QD[list(queries)], [parts[number].place for number in numbers], k)
        for query, score_K, place_K, row_K in zip(queries, score_QK, place_QK, row_QK, strict=True):
            found[query].append((score_K, np.asarray(numbers, np.int32)[place_K], row_K))
    return _best(found, k)


def _best(found: Sequence[Sequence[_Hits]], k: int) -> _Hits:
    """The k best of what each query found; every query found as many, or k."""
    best = []
    for hits in found:
        score_C, place_C, row_C = (np.concatenate(each) for each in zip(*hits, strict=True))
        order = np.lexsort((row_C, place_C, -score_C))[:k]
        best.append((score_C[order], place_C[order], row_C[order]))
    score_QK, place_QK, row_QK = (np.stack(each) for each in zip(*best, strict=True))
    return score_QK, place_QK, row_QK
