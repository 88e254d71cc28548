"""Hash index of text keys in bounded memory: a sorted array of 64-bit hashes, 16 bytes a row whatever the keys' length.

Two keys may share a hash (about once in a million sets of 4 M keys), so whoever joins compares the keys themselves afterwards.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def hashes(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A 64-bit hash of each text, uint64; the same in every process and version. No key may be null."""
    from pandas.util import hash_array

    return hash_array(keys.to_numpy(zero_copy_only=False).astype(object), categorize=False)


class KeyIndex:
    """Rows of a column of keys, by the keys' hashes.

    Args:
        hash_K: of each row's key; row numbers are positions. Of equal hashes the first row is found.
    """

    def __init__(self, hash_K: np.ndarray) -> None:
        self._row_K = np.argsort(hash_K, kind="stable")
        self._hash_K = hash_K[self._row_K]

    def find(self, hash_R: np.ndarray) -> np.ndarray:
        """The row of each hash, int64 [R]; -1 where no row has it."""
        if not len(self._hash_K):
            return np.full(len(hash_R), -1, np.int64)
        place_R = np.minimum(np.searchsorted(self._hash_K, hash_R), len(self._hash_K) - 1)
        return np.where(self._hash_K[place_R] == hash_R, self._row_K[place_R], -1)

    def repeated(self) -> np.ndarray:
        """Rows whose hash an earlier row has, ascending."""
        return np.sort(self._row_K[1:][self._hash_K[1:] == self._hash_K[:-1]])
