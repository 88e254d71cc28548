"""Which vectors are equal, byte by byte. Twins tie in every search, so of each group a search needs the first few and no more.

Found once, when vectors are stored: by a hash of each row, then by comparing bytes, so that no two rows are called equal that are not.
Knows vectors; not items, files or queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

_ROWS_PER_BLOCK = 8_192
_NO_GROUPS = np.zeros(0, np.int32)


@dataclass(frozen=True)
class Twins:
    """Groups of equal vectors.

    group_N: int32 [N], the number of each row's group, -1 for a row that has no twin; empty if no row has any.
    groups: how many groups there are.
    """

    group_N: np.ndarray
    groups: int

    @classmethod
    def read(cls, group_N: np.ndarray) -> Twins:
        """As `twin_groups` gave them."""
        return cls(group_N, int(group_N.max(initial=-1)) + 1)


NO_TWINS = Twins(_NO_GROUPS, 0)


def twin_groups(vectors: np.ndarray) -> np.ndarray:
    """Number of each row's group, int32 [N], -1 for a row without a twin; empty if there are no twins.

    Of different rows that share a hash only the first one's twins are found; the others count as none, and are only slower to search.

    Args:
        vectors: float32 or float16 [N, D], in memory or mapped.
    """
    hash_N = row_hashes(vectors)
    order_N = np.argsort(hash_N, kind="stable")
    alike_N = hash_N[order_N][1:] == hash_N[order_N][:-1]
    if not alike_N.any():
        return _NO_GROUPS
    group_N = np.full(len(vectors), -1, np.int32)
    groups = _group(vectors.view(f"u{vectors.dtype.itemsize}"), order_N, alike_N, group_N)
    return group_N if groups else _NO_GROUPS


def row_hashes(vectors: np.ndarray) -> np.ndarray:
    """A hash of each row's bytes, uint64 [N]: sums of the components' bits times fixed odd numbers."""
    factor_D = np.random.default_rng(0).integers(1 << 63, size=vectors.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hash_N = np.empty(len(vectors), np.uint64)
    for start in range(0, len(vectors), _ROWS_PER_BLOCK):
        block_BD = np.ascontiguousarray(vectors[start : start + _ROWS_PER_BLOCK])
        _hash(block_BD.view(f"u{block_BD.itemsize}"), factor_D, hash_N[start : start + len(block_BD)])
    return hash_N


def same_bytes(one_D: np.ndarray, other_D: np.ndarray) -> bool:
    """Whether two rows are equal, byte by byte."""
    return one_D.tobytes() == other_D.tobytes()


@numba.njit(nogil=True, cache=True)
def _hash(bits_BD: np.ndarray, factor_D: np.ndarray, hash_B: np.ndarray) -> None:
    for row in range(bits_BD.shape[0]):
        total = np.uint64(0)
        for d in range(bits_BD.shape[1]):
            total += np.uint64(bits_BD[row, d]) * factor_D[d]
        hash_B[row] = total


@numba.njit(nogil=True, cache=True)
def _group(bits_ND: np.ndarray, order_N: np.ndarray, alike_N: np.ndarray, group_N: np.ndarray) -> int:
    """Number the groups among rows in the order of their hashes; alike_N says whether a row has the hash of the next one."""
    first, groups = -1, 0
    for at in range(alike_N.shape[0]):
        if not alike_N[at]:
            continue
        if at == 0 or not alike_N[at - 1]:
            first = order_N[at]
        row = order_N[at + 1]
        same = True
        for d in range(bits_ND.shape[1]):
            same &= bits_ND[row, d] == bits_ND[first, d]
        if same:
            if group_N[first] < 0:
                group_N[first] = groups
                groups += 1
            group_N[row] = group_N[first]
    return groups
