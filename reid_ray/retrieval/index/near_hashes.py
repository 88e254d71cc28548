"""Near-duplicate search: which of many perceptual hashes lie within a few bits of one of ours (FAISS, multi-index hashing).

Hashes that differ in at most 7 of 128 bits agree in one of 8 words of 16 bits at least (Norouzi et al., CVPR 2012), so the search is exact
and looks only where a word agrees. Knows hashes; not pictures or what they are for.
"""

from __future__ import annotations

import numpy as np

from reid_ray.data.perceptual_hash import BITS, NEAR_BITS

_WORDS = 8
_BLOCK = 2_048  # hashes that are asked about together
_BESIDE = 8  # of equal hashes each is paired with so many that follow it


class NearHashes:
    """An index of hashes.

    Args:
        hash_NB: uint8 [N, 16].
    """

    def __init__(self, hash_NB: np.ndarray) -> None:
        import faiss

        self._index = faiss.IndexBinaryMultiHash(BITS, _WORDS, BITS // _WORDS)
        if len(hash_NB):
            self._index.add(np.ascontiguousarray(hash_NB))

    def pairs(self, hash_MB: np.ndarray, *, bits: int = NEAR_BITS) -> tuple[np.ndarray, np.ndarray]:
        """Rows (m, n) of pairs that differ in at most `bits` bits, 0 to 7: int64 [P] each, m ascending."""
        if not len(hash_MB) or not self._index.ntotal:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        limit_M, _, row_P = self._index.range_search(np.ascontiguousarray(hash_MB), bits + 1)
        return np.repeat(np.arange(len(hash_MB)), np.diff(limit_M.astype(np.int64))), row_P.astype(np.int64)


def best_near_pairs(hash_NB: np.ndarray, *, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows that differ in at most NEAR_BITS bits, the most alike first.

    Rows of one hash stand for each other: the first of them alone is paired with other hashes, and of many such rows each is paired with
    the next few alone, for a thousand equal pictures are half a million pairs that say the same. Holds some 60 bytes a row and the pairs
    of _BLOCK rows at once.

    Args:
        hash_NB: uint8 [N, 16].
        most: pairs at most.

    Returns:
        int64 [P, 2], (i, j) with i < j, ordered by bits, i, j; and int64 [P], the bits that differ.
    """
    words_N = np.ascontiguousarray(hash_NB).view([("", np.uint64)] * 2).ravel()
    _, first_U, unique_N = np.unique(words_N, return_index=True, return_inverse=True)
    alike_N = np.argsort(unique_N, kind="stable")
    pair_P2, bits_P = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    for step in range(1, _BESIDE + 1):
        row_A, row_B = alike_N[:-step], alike_N[step:]
        same = unique_N[row_A] == unique_N[row_B]
        found = np.stack([row_A[same], row_B[same]], axis=1)
        pair_P2, bits_P = _best(pair_P2, bits_P, found, np.zeros(len(found), np.int64), most)
    index = NearHashes(hash_NB[first_U])
    for start in range(0, len(first_U), _BLOCK):
        row_B = first_U[start : start + _BLOCK]
        asked, other = index.pairs(hash_NB[row_B])
        found = np.stack([row_B[asked], first_U[other]], axis=1)
        found = found[found[:, 0] < found[:, 1]]  # each pair is found from both sides
        bits = np.unpackbits(hash_NB[found[:, 0]] ^ hash_NB[found[:, 1]], axis=1).sum(axis=1, dtype=np.int64)
        pair_P2, bits_P = _best(pair_P2, bits_P, found, bits, most)
    return pair_P2, bits_P


def _best(pair_P2: np.ndarray, bits_P: np.ndarray, more_Q2: np.ndarray, bits_Q: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The `most` best of both, in order."""
    pair_P2, bits_P = np.concatenate([pair_P2, more_Q2]), np.concatenate([bits_P, bits_Q])
    order = np.lexsort((pair_P2[:, 1], pair_P2[:, 0], bits_P))[:most]
    return pair_P2[order], bits_P[order]
