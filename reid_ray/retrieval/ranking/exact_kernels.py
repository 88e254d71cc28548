"""Compiled inner loops of ranking: count the scores above each match's score, and keep the best few. Numba only.

A match's rank is one more than the number of gallery items before it, so nothing is ever sorted: one streaming pass per row
compares 16 scores an instruction with the few scores of the matches. Rows are independent; callers share them out to threads
(the loops release the interpreter lock).
"""

from __future__ import annotations

import numba
import numpy as np

_CHUNK = 2048  # scores that stay in the first-level cache while every match is compared with them
_BELOW = np.float32(-np.inf)


@numba.njit(nogil=True, cache=True)
def split_group(  # noqa: PLR0917
    members: np.ndarray, camera: int, gallery_camera_G: np.ndarray, drop: bool, positive: np.ndarray, removed: np.ndarray
) -> tuple[int, int]:
    """Share the gallery rows of one person into matches and rows to remove; returns how many of each."""
    positives, removals = 0, 0
    for position in range(members.shape[0]):
        item = members[position]
        if drop and gallery_camera_G[item] == camera:
            removed[removals] = item
            removals += 1
        else:
            positive[positives] = item
            positives += 1
    return positives, removals


@numba.njit(nogil=True, cache=True)
def _count_before(score_G: np.ndarray, positive: np.ndarray, count: np.ndarray, threshold: np.ndarray, effective: np.ndarray) -> bool:
    """count[p] += gallery items that rank before positive p. Returns False if a score is not finite.

    Arrays are padded to a multiple of four with thresholds of infinity, which nothing passes.
    """
    padded = threshold.shape[0]
    total = score_G.shape[0]
    for start in range(0, total, _CHUNK):
        chunk = score_G[start : start + _CHUNK]
        stop = start + chunk.shape[0]
        broken = np.int32(0)  # x - x is 0 for every finite x and NaN otherwise
        for j in range(chunk.shape[0]):
            broken = np.int32(broken + np.int32(chunk[j] - chunk[j] != np.float32(0)))
        if broken > 0:
            return False
        for p in range(padded):
            effective[p] = threshold[p]
            if p >= positive.shape[0]:
                continue
            if positive[p] >= stop:  # the whole chunk comes first in the gallery: equal scores rank before p
                effective[p] = np.nextafter(threshold[p], _BELOW)
            elif positive[p] > start:
                for j in range(positive[p] - start):
                    count[p] += chunk[j] == threshold[p]
        for p in range(0, padded, 4):
            limit_0, limit_1, limit_2, limit_3 = effective[p], effective[p + 1], effective[p + 2], effective[p + 3]
            count_0, count_1, count_2, count_3 = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
            for j in range(chunk.shape[0]):
                score = chunk[j]
                count_0 = np.int32(count_0 + np.int32(score > limit_0))
                count_1 = np.int32(count_1 + np.int32(score > limit_1))
                count_2 = np.int32(count_2 + np.int32(score > limit_2))
                count_3 = np.int32(count_3 + np.int32(score > limit_3))
            count[p] += count_0
            count[p + 1] += count_1
            count[p + 2] += count_2
            count[p + 3] += count_3
    return True


@numba.njit(nogil=True, cache=True)
def rank_rows(  # noqa: PLR0917
    score_BG: np.ndarray,
    order_G: np.ndarray,
    group_start_B: np.ndarray,
    group_stop_B: np.ndarray,
    query_camera_B: np.ndarray,
    gallery_camera_G: np.ndarray,
    drop: bool,
    largest_group: int,
    offset_B: np.ndarray,
    rank: np.ndarray,
    relevant_B: np.ndarray,
    removed_B: np.ndarray,
) -> int:
    """Ranks of the matches of each row, ascending, into rank[offset_B[b] : + relevant_B[b]]; rows of larger groups are left alone.

    order_G lists gallery rows grouped by person, ascending within a group; row b's person is order_G[group_start_B[b] :
    group_stop_B[b]]. Returns -1, or the first row whose scores are not all finite.
    """
    positive = np.empty(largest_group, np.int64)
    removed = np.empty(largest_group, np.int64)
    for b in range(score_BG.shape[0]):
        members = order_G[group_start_B[b] : group_stop_B[b]]
        if members.shape[0] > largest_group:
            continue
        positives, removals = split_group(members, query_camera_B[b], gallery_camera_G, drop, positive, removed)
        relevant_B[b] = positives
        removed_B[b] = removals
        if positives == 0:
            continue
        score_G = score_BG[b]
        padded = (positives + 3) // 4 * 4
        count = np.zeros(padded, np.int64)
        threshold = np.full(padded, np.float32(np.inf), np.float32)
        for p in range(positives):
            threshold[p] = score_G[positive[p]]
        if not _count_before(score_G, positive[:positives], count, threshold, np.empty(padded, np.float32)):
            return b
        for p in range(positives):
            for r in range(removals):
                other = score_G[removed[r]]
                count[p] -= other > threshold[p] or (other == threshold[p] and removed[r] < positive[p])
            place = offset_B[b] + p  # insertion sort: groups are small
            value = count[p] + 1
            while place > offset_B[b] and rank[place - 1] > value:
                rank[place] = rank[place - 1]
                place -= 1
            rank[place] = value
    return -1


@numba.njit(nogil=True, cache=True)
def top_rows(  # noqa: PLR0917
    score_BG: np.ndarray,
    query_person_B: np.ndarray,
    gallery_person_G: np.ndarray,
    query_camera_B: np.ndarray,
    gallery_camera_G: np.ndarray,
    drop: bool,
    top_index_BK: np.ndarray,
    top_score_BK: np.ndarray,
) -> None:
    """Best K gallery rows of each query, best first, equal scores in gallery order; index -1 where fewer than K are left."""
    keep = top_index_BK.shape[1]
    for b in range(score_BG.shape[0]):
        score_G, index, best = score_BG[b], top_index_BK[b], top_score_BK[b]
        index[:] = -1
        best[:] = -np.inf
        floor = best[keep - 1]
        for j in range(score_G.shape[0]):
            score = score_G[j]
            if not score > floor:
                continue
            if drop and gallery_person_G[j] == query_person_B[b] and gallery_camera_G[j] == query_camera_B[b]:
                continue
            place = keep - 1
            while place > 0 and best[place - 1] < score:
                best[place] = best[place - 1]
                index[place] = index[place - 1]
                place -= 1
            best[place] = score
            index[place] = j
            floor = best[keep - 1]
