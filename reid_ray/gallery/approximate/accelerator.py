"""The FAISS index of a segment: made when the segment is sealed, a file beside its vectors, which names candidates of a search.

It holds each vector once: of equal vectors the first, in whose place its twins are found again. What it says is never an answer: the
candidates' stored vectors are compared exactly by whoever asks. Knows one segment's vectors; not items or where the segment lies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from reid_ray.errors import DataError
from reid_ray.gallery.approximate.clusters import ClusterSearch, new_clusters
from reid_ray.gallery.approximate.graph import GraphSearch, new_graph
from reid_ray.gallery.config import NearestConfig
from reid_ray.gallery.sealed.twins import Twins

INDEX_ENDING = ".faiss"
_ROWS_PER_BLOCK = 16_384


class _Search(Protocol):
    """Interface (protocol) of what names candidates among an index's own rows."""

    def candidates(
        self, query_QD: np.ndarray, wanted: int, passing_N: np.ndarray | None, count: int, config: NearestConfig
    ) -> list[np.ndarray | None]:
        """Rows of each query, None where an exact search costs no more."""
        ...


def accelerator_name(kind: str) -> str:
    """The file of a kind."""
    return f"{kind}{INDEX_ENDING}"


def write_accelerator(path: Path, vectors: np.ndarray, twins: Twins, config: NearestConfig) -> None:
    """Index a segment's vectors. Takes the codes' memory, and that of the training vectors as float32.

    Args:
        path: the file.
        vectors: float32 or float16 [N, D], at least one.
        twins: which of them are equal.
        config: the kind, and how it is built.
    """
    import faiss

    row_U = distinct_rows(twins, len(vectors))
    sample_U = row_U
    if len(row_U) > config.train_vectors:
        sample_U = np.sort(np.random.default_rng(config.seed).choice(row_U, config.train_vectors, replace=False))
    sample_SD = np.asarray(vectors[sample_U], np.float32)
    index = new_graph(sample_SD, config) if config.kind == "hnsw" else new_clusters(sample_SD, len(row_U), config)
    del sample_SD
    for start in range(0, len(row_U), _ROWS_PER_BLOCK):
        index.add(np.ascontiguousarray(vectors[row_U[start : start + _ROWS_PER_BLOCK]], np.float32))
    faiss.write_index(index, str(path))


class Accelerator:
    """An open index of a segment. May be asked from several threads.

    Args:
        path: the file that write_accelerator wrote; its name says of which kind it is.
        rows: of the segment.
        twins: which of its vectors are equal.

    Raises:
        FileNotFoundError: it is gone: a newer generation does without the segment.
        DataError: it cannot be read, or does not fit the segment.
    """

    def __init__(self, path: Path, rows: int, twins: Twins) -> None:
        import faiss

        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            if not path.exists():
                raise FileNotFoundError(path) from None
            raise DataError(f"{path}: cannot be read ({str(error)[-200:]}); restore it from a snapshot or a copy") from None
        self._rows, self._twins = rows, twins
        self._row_U = distinct_rows(twins, rows)
        if index.ntotal != len(self._row_U):
            raise DataError(f"{path}: holds {index.ntotal} vectors, not the {len(self._row_U)} of its segment; restore it from a copy")
        self._search: _Search = GraphSearch(index) if path.name == accelerator_name("hnsw") else ClusterSearch(index)
        if twins.groups:
            self._member_N = np.argsort(twins.group_N, kind="stable")
            self._first_T1 = np.searchsorted(twins.group_N[self._member_N], np.arange(twins.groups + 1))

    def candidates(self, query_QD: np.ndarray, wanted: int, passing_N: np.ndarray | None, config: NearestConfig) -> list[np.ndarray | None]:
        """Rows that may be among the best of each query and pass, ascending; None where an exact search costs no more.

        Args:
            query_QD: float32 unit vectors.
            wanted: at least so many rows come back, or all that pass.
            passing_N: which rows count, None: all.
            config: how far to look.
        """
        group_N, groups = self._twins.group_N, self._twins.groups
        passing_U = None
        if passing_N is not None and not passing_N.all():
            passing_U = passing_N[self._row_U]
            if groups:
                any_T = np.zeros(groups, np.bool_)
                any_T[group_N[passing_N & (group_N >= 0)]] = True
                grouped = np.flatnonzero(group_N[self._row_U] >= 0)
                passing_U[grouped] = any_T[group_N[self._row_U[grouped]]]
        count = len(self._row_U) if passing_U is None else int(np.count_nonzero(passing_U))
        if not count:
            return [np.zeros(0, np.int64) for _ in query_QD]
        found = self._search.candidates(query_QD, min(wanted, count), passing_U, count, config)
        return [None if found_C is None else self._with_twins(self._row_U[found_C], wanted, passing_N) for found_C in found]

    def _with_twins(self, row_C: np.ndarray, wanted: int, passing_N: np.ndarray | None) -> np.ndarray:
        """Rows, and in place of each that has twins the first `wanted` of its group that pass."""
        if not self._twins.groups:
            return np.sort(row_C)
        group_C = self._twins.group_N[row_C]
        rows = [row_C[group_C < 0]]
        for group in group_C[group_C >= 0]:
            member_M = self._member_N[self._first_T1[group] : self._first_T1[group + 1]]
            rows.append((member_M if passing_N is None else member_M[passing_N[member_M]])[:wanted])
        return np.sort(np.concatenate(rows))


def distinct_rows(twins: Twins, rows: int) -> np.ndarray:
    """The first row of each group of equal vectors, and those that have no twin: int64, ascending."""
    if not twins.groups:
        return np.arange(rows)
    first_N = twins.group_N < 0
    first_N[np.unique(twins.group_N, return_index=True)[1]] = True
    return np.flatnonzero(first_N)
