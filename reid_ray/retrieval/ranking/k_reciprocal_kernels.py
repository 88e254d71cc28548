"""Compiled inner loops of k-reciprocal re-ranking. Numba only; sparse rows are (start [N + 1], column [M], weight [M])."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def nearest_rows(distance_BN: np.ndarray, nearest_BK: np.ndarray) -> None:
    """The K smallest of each row, ascending, equal ones in item order, into nearest_BK."""
    keep = nearest_BK.shape[1]
    best = np.empty(keep, np.float32)
    for b in range(distance_BN.shape[0]):
        best[:] = np.inf
        limit = best[keep - 1]
        for j in range(distance_BN.shape[1]):
            distance = distance_BN[b, j]
            if not distance < limit:
                continue
            place = keep - 1
            while place > 0 and best[place - 1] > distance:
                best[place] = best[place - 1]
                nearest_BK[b, place] = nearest_BK[b, place - 1]
                place -= 1
            best[place] = distance
            nearest_BK[b, place] = j
            limit = best[keep - 1]


@numba.njit(cache=True)
def reciprocal(neighbour_NK: np.ndarray) -> np.ndarray:
    """R(i, k): the neighbours of each item that have it among theirs, in their order, padded with -1."""
    count, keep = neighbour_NK.shape
    found_NK = np.full((count, keep), -1, np.int64)
    for i in range(count):
        found = 0
        for a in range(keep):
            other = neighbour_NK[i, a]
            for b in range(keep):
                if neighbour_NK[other, b] == i:
                    found_NK[i, found] = other
                    found += 1
                    break
    return found_NK


@numba.njit(cache=True)
def _take(row_K: np.ndarray, mark: int, marked_by: np.ndarray, members: np.ndarray, size: int) -> int:
    """Append the items of a padded row that `mark` has not taken yet; returns the new size."""
    for item in row_K:
        if item < 0:
            break
        if marked_by[item] != mark:
            marked_by[item] = mark
            members[size] = item
            size += 1
    return size


@numba.njit(cache=True)
def _overlaps(row_K: np.ndarray, mark: int, marked_by: np.ndarray) -> bool:
    """Whether more than two thirds of a padded row's items carry `mark`."""
    both, total = 0, 0
    for item in row_K:
        if item < 0:
            break
        total += 1
        both += marked_by[item] == mark
    return 3 * both > 2 * total


@numba.njit(cache=True)
def expand(
    reciprocal_NK: np.ndarray, half_NK: np.ndarray, item_ND: np.ndarray, largest_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R*(i, k1): R(i, k1) and the half-size sets of its members that overlap it by more than two thirds; weights exp(-distance), sum 1."""
    count = reciprocal_NK.shape[0]
    most = reciprocal_NK.shape[1] * (1 + half_NK.shape[1])
    start = np.zeros(count + 1, np.int64)
    column, weight = np.empty(count * reciprocal_NK.shape[1], np.int64), np.empty(count * reciprocal_NK.shape[1], np.float32)
    base_of, taken_by = np.full(count, -1, np.int64), np.full(count, -1, np.int64)  # item whose R and whose R* hold each item
    members = np.empty(most, np.int64)
    for i in range(count):
        _take(reciprocal_NK[i], i, base_of, members, 0)
        size = _take(reciprocal_NK[i], i, taken_by, members, 0)
        for candidate in reciprocal_NK[i]:
            if candidate < 0:
                break
            if _overlaps(half_NK[candidate], i, base_of):
                size = _take(half_NK[candidate], i, taken_by, members, size)
        start[i + 1] = start[i] + size
        if start[i + 1] > column.shape[0]:
            column = np.concatenate((column, np.empty(column.shape[0] + most, np.int64)))
            weight = np.concatenate((weight, np.empty(weight.shape[0] + most, np.float32)))
        total_weight = 0.0
        for place in range(start[i], start[i + 1]):
            other = members[place - start[i]]
            squared = 0.0
            for d in range(item_ND.shape[1]):
                difference = item_ND[i, d] - item_ND[other, d]
                squared += difference * difference
            column[place] = other
            weight[place] = np.exp(-squared / largest_N[i])
            total_weight += weight[place]
        weight[start[i] : start[i + 1]] /= total_weight
    return start, column[: start[count]].copy(), weight[: start[count]].copy()


@numba.njit(cache=True)
def average(
    neighbour_NK: np.ndarray, start: np.ndarray, column: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local query expansion: each row becomes the mean of the rows of its K nearest."""
    count, keep = neighbour_NK.shape
    new_start = np.zeros(count + 1, np.int64)
    seen_by = np.full(count, -1, np.int64)
    for i in range(count):  # first count, then fill
        size = 0
        for k in range(keep):
            other = neighbour_NK[i, k]
            for place in range(start[other], start[other + 1]):
                if seen_by[column[place]] != i:
                    seen_by[column[place]] = i
                    size += 1
        new_start[i + 1] = new_start[i] + size
    new_column = np.empty(new_start[count], np.int64)
    new_weight = np.empty(new_start[count], np.float32)
    total_N = np.zeros(count, np.float64)
    seen_by[:] = -1
    for i in range(count):
        size = new_start[i]
        for k in range(keep):
            other = neighbour_NK[i, k]
            for place in range(start[other], start[other + 1]):
                item = column[place]
                if seen_by[item] != i:
                    seen_by[item] = i
                    total_N[item] = 0
                    new_column[size] = item
                    size += 1
                total_N[item] += weight[place]
        for place in range(new_start[i], new_start[i + 1]):
            new_weight[place] = total_N[new_column[place]] / keep
    return new_start, new_column, new_weight


@numba.njit(cache=True)
def transpose(start: np.ndarray, column: np.ndarray, weight: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by column: which items have a weight for each item."""
    back_start = np.zeros(count + 1, np.int64)
    for item in column:
        back_start[item + 1] += 1
    for i in range(count):
        back_start[i + 1] += back_start[i]
    free = back_start[:-1].copy()
    back_row, back_weight = np.empty(column.shape[0], np.int64), np.empty(column.shape[0], np.float32)
    for i in range(count):
        for place in range(start[i], start[i + 1]):
            target = free[column[place]]
            free[column[place]] += 1
            back_row[target] = i
            back_weight[target] = weight[place]
    return back_start, back_row, back_weight


@numba.njit(cache=True)
def jaccard_rows(  # noqa: PLR0917
    first: int,
    last: int,
    start: np.ndarray,
    column: np.ndarray,
    weight: np.ndarray,
    back_start: np.ndarray,
    back_row: np.ndarray,
    back_weight: np.ndarray,
    count: int,
) -> np.ndarray:
    """Jaccard distance of items first..last - 1 to all items: 1 - sum of minima / sum of maxima, which is 2 - minima for rows of sum 1."""
    distance_BN = np.empty((last - first, count), np.float32)
    smaller_N = np.empty(count, np.float64)
    for i in range(first, last):
        smaller_N[:] = 0
        for place in range(start[i], start[i + 1]):
            item, own = column[place], weight[place]
            for back in range(back_start[item], back_start[item + 1]):
                smaller_N[back_row[back]] += min(own, back_weight[back])
        for j in range(count):
            distance_BN[i - first, j] = 1 - smaller_N[j] / (2 - smaller_N[j])
    return distance_BN
