"""Where an id lies among the items of a segment: sorted 64-bit hashes and row numbers, 12 bytes an item, read by binary search.

Two ids may share a hash, and an id may lie in a segment once only; so a row found by its hash counts if its id is the one asked for.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numba
import numpy as np

_LOOKUP = np.dtype([("hash", "<u8"), ("row", "<u4")])


def id_hashes(ids: Sequence[str]) -> np.ndarray:
    """64 bits of BLAKE2b of each id, uint64 [N]."""
    if not ids:
        return np.zeros(0, np.uint64)
    return np.frombuffer(b"".join(hashlib.blake2b(each.encode("utf-8", "surrogatepass"), digest_size=8).digest() for each in ids), "<u8")


def sorted_lookup(ids: Sequence[str]) -> np.ndarray:
    """The table of a segment: (hash, row) by hash, structured [N]."""
    found = np.empty(len(ids), _LOOKUP)
    found["hash"], found["row"] = id_hashes(ids), np.arange(len(ids), dtype=np.uint32)
    return found[np.argsort(found["hash"], kind="stable")]


def first_place(lookup: np.ndarray, bound: int) -> int:
    """Place of the first hash that is not below a bound of 0 to 2**64; reads the few places on the way alone."""
    return bisect_left(lookup["hash"], np.uint64(bound)) if bound < 1 << 64 else len(lookup)


def _first_places(hashes: np.ndarray, hash_N: np.ndarray) -> np.ndarray:
    """Place of the first of the hashes that is not below each of hash_N, int64 [N]; `hashes` need not lie side by side."""
    order_N, found_N = np.argsort(hash_N), np.empty(len(hash_N), np.int64)
    found_N[order_N] = _in_order(hashes, hash_N[order_N])
    return found_N


@numba.njit(nogil=True, cache=True)
def _in_order(hashes: np.ndarray, hash_N: np.ndarray) -> np.ndarray:
    """Places of ascending hashes: from each one on, steps twice as long until it is passed, then bisection."""
    first_N, count, low = np.empty(len(hash_N), np.int64), len(hashes), 0
    for at in range(len(hash_N)):
        wanted, high, step = hash_N[at], low, 1
        while high < count and hashes[high] < wanted:
            low = high + 1
            high += step
            step *= 2
        high = min(high, count)
        while low < high:
            middle = (low + high) // 2
            if hashes[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        first_N[at] = low
    return first_N


def rows_of(lookup: np.ndarray, ids: Sequence[str], hash_N: np.ndarray, id_at: Callable[[int], str]) -> np.ndarray:
    """Row of each id, int64 [N], -1 where the segment lacks it.

    Args:
        lookup: sorted_lookup of the segment.
        ids: what is asked for.
        hash_N: their id_hashes.
        id_at: the id of a row, to tell ids of one hash apart.
    """
    found = np.full(len(ids), -1, np.int64)
    if not len(lookup):
        return found
    hashes = lookup["hash"]
    first_N = _first_places(hashes, hash_N)
    for at in np.flatnonzero(hashes[np.minimum(first_N, len(hashes) - 1)] == hash_N):
        place = int(first_N[at])
        while place < len(hashes) and hashes[place] == hash_N[at]:
            if id_at(int(lookup["row"][place])) == ids[at]:
                found[at] = int(lookup["row"][place])
                break
            place += 1
    return found
