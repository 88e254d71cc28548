"""What the gallery's benchmarks search: vectors around a centre for each fifty, as persons have several pictures, and tables of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

SHARES = {"0.1 %": 1, "1 %": 10, "10 %": 100, "50 %": 500, "100 %": 1000}
"""Share that a range filter lets pass -> the number that `share` must be below."""


@dataclass(frozen=True)
class Crowd:
    """What is searched: unit vectors [N, D], for each a number below 1000 that a range filter asks for, and queries [64, D]."""

    vectors: np.ndarray
    share: np.ndarray
    query: np.ndarray


def people(count: int, *, dim: int, seed: int = 0, centres_seed: int = 0, persons: int | None = None) -> np.ndarray:
    """Unit vectors around persons' centres, float32 [count, dim]."""
    persons = persons or max(1, count // 50)
    centres = np.random.default_rng(centres_seed).normal(size=(persons, dim)).astype(np.float32)
    rng = np.random.default_rng((seed, 1))
    vectors = np.empty((count, dim), np.float32)
    for start in range(0, count, 50_000):
        stop = min(start + 50_000, count)
        noise = rng.normal(size=(stop - start, dim)).astype(np.float32)
        vectors[start:stop] = centres[rng.integers(persons, size=stop - start)] + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def crowd_of(count: int, *, dim: int) -> Crowd:
    """A crowd, and queries of its persons that are not in it."""
    vectors = people(count + 64, dim=dim)
    return Crowd(vectors[:count], np.random.default_rng(1).integers(1000, size=count), vectors[count:].copy())


def table_of(vectors: np.ndarray, first: int, share: np.ndarray) -> pa.Table:
    """Items of a gallery; `share` is a number below 1000 that a range filter asks for."""
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    ids = [f"item-{number:09d}" for number in range(first, first + len(vectors))]
    return pa.table(
        {"item_id": ids, "embedding": array, "share": pa.array(share, pa.int64()), "person_id": pa.array(share * 7, pa.int64())}
    )
