"""Near-duplicate search: which of many perceptual hashes lie within a few bits of one of ours (FAISS, multi-index hashing).

Hashes that differ in at most 7 of 128 bits agree in one of 8 words of 16 bits at least (Norouzi et al., CVPR 2012), so the search is exact
and looks only where a word agrees. Knows hashes; not pictures or what they are for.
"""

from __future__ import annotations

import numpy as np

from reid_ray.data.perceptual_hash import BITS, NEAR_BITS

_WORDS = 8


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
