"""Exact ranking of a gallery for many queries, in blocks: ranks of all matches and the best few hits, without sorting.

Knows features, scores and the ground truth; not files or models. Never holds more than one block of the query x gallery matrix
(block_bytes), so 11,659 x 82,161 fits in the memory of its features and 32 MiB. On the CPU a block of scores comes from oneDNN
and compiled loops count on it; features on a CUDA device stay there (reid_ray.retrieval.ranking.exact_torch). Both give the same
ranks for the same scores, ties included (see reid_ray.retrieval.metrics).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from reid_ray.errors import DataError
from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth, QueryResults
from reid_ray.retrieval.ranking.blocks import BLOCK_BYTES, PersonGroups, Ranking, block_rows

_GOOD_ROWS = 64  # rows from which on a product runs at three quarters of its best speed
_COUNTED_GROUP = 512  # persons with more gallery images than this are ranked by sorting the row, which is cheaper from there on

_LEAST_ROWS = 16  # from 2 rows on (oneDNN) or 8 (MKL) a score has the same bits in a block of any size; with a margin


def rank_queries(
    query_QD: Any,
    gallery_GD: Any,
    truth: GroundTruth,
    *,
    top_k: int = 0,
    block_bytes: int = BLOCK_BYTES,
    threads: int | None = None,
) -> Ranking:
    """Rank the gallery for every query by dot product (cosine, for unit rows).

    Args:
        query_QD: float32 features, numpy or torch; on a CUDA device the work is done there.
        gallery_GD: likewise.
        truth: persons, and cameras if image to image.
        top_k: hits to keep per query; 0 keeps none.
        block_bytes: scores held at once, over all threads (but never fewer than 16 rows).
        threads: CPU threads; null takes torch's number.

    Raises:
        DataError: shapes disagree, or a score is not finite (check features with metrics.unit_rows, which names the row).
    """
    import torch

    query_QD, gallery_GD = torch.as_tensor(query_QD), torch.as_tensor(gallery_GD)
    _check_shapes(tuple(query_QD.shape), tuple(gallery_GD.shape), truth)
    if gallery_GD.device.type != "cpu":
        from reid_ray.retrieval.ranking.exact_torch import rank_on_device

        return rank_on_device(query_QD, gallery_GD, truth, top_k=top_k, block_bytes=block_bytes)
    query_QD, gallery_GD = query_QD.to(torch.float32).contiguous(), gallery_GD.to(torch.float32).contiguous()
    product = product_with(gallery_GD)
    before = torch.get_num_threads()
    threads = threads or before
    # A worker multiplies a block and counts on it while its scores are in the cache. Few cores: one worker each. Many: fewer
    # workers with several threads each, since a block of few rows would read the whole gallery for little work.
    workers = max(1, min(threads, block_bytes // (4 * _GOOD_ROWS * max(1, len(gallery_GD)))))
    rows = block_rows(len(gallery_GD), bytes_per_score=4, block_bytes=block_bytes // workers)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            return _rank_blocks(lambda block: scores_of_block(query_QD[block], product), truth, top_k=top_k, rows=rows, pool=pool)
    finally:
        torch.set_num_threads(before)


def rank_scores(score_QG: np.ndarray, truth: GroundTruth, *, top_k: int = 0, threads: int | None = None) -> Ranking:
    """Rank by a matrix of float32 scores that exists already (higher is better)."""
    _check_shapes((score_QG.shape[0], 0), (score_QG.shape[1], 0), truth)
    score_QG = np.ascontiguousarray(score_QG, dtype=np.float32)
    threads = threads or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        return _rank_blocks(score_QG.__getitem__, truth, top_k=top_k, rows=-(-max(1, len(score_QG)) // threads), pool=pool)


def rank_blocks(scores_of: Callable[[slice], np.ndarray], truth: GroundTruth, *, top_k: int = 0, block_bytes: int = BLOCK_BYTES) -> Ranking:
    """Rank by scores that are made on demand, a block of queries at a time: `scores_of(rows)` gives float32 [B, G], higher is better."""
    rows = block_rows(len(truth.gallery_person_G), bytes_per_score=4, block_bytes=block_bytes)
    with ThreadPoolExecutor(1) as pool:
        return _rank_blocks(scores_of, truth, top_k=top_k, rows=rows, pool=pool)


def scores_of_block(query_BD: Any, product: Callable[[Any], Any]) -> np.ndarray:
    """One block of scores. Few rows are filled up: matrix-vector code rounds otherwise, and the block size would show in the result."""
    import torch

    missing = _LEAST_ROWS - len(query_BD)
    with torch.inference_mode():
        if missing > 0:
            return product(torch.nn.functional.pad(query_BD, (0, 0, 0, missing))).numpy()[:-missing]
        return product(query_BD).numpy()


def product_with(gallery_GD: Any) -> Callable[[Any], Any]:
    """query_BD -> score_BG. oneDNN's float32 product uses AVX-512 on every vendor's CPU; torch.mm (MKL) took 2.6 times as long on AMD."""
    import torch

    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return lambda query_BD: torch.ops.mkldnn._linear_pointwise(query_BD, gallery_GD, None, "none", [], "")
    return lambda query_BD: query_BD @ gallery_GD.T


def _rank_blocks(
    scores_of: Callable[[slice], np.ndarray], truth: GroundTruth, *, top_k: int, rows: int, pool: ThreadPoolExecutor
) -> Ranking:
    groups = PersonGroups.of(truth)
    count = len(truth.query_person_Q)
    top_index_QK = np.full((count, top_k), -1, dtype=np.int64)
    top_score_QK = np.full((count, top_k), -np.inf, dtype=np.float32)

    def rank(block: slice) -> QueryResults:
        return _rank_rows(scores_of(block), block, truth, groups, top_index_QK[block], top_score_QK[block])

    blocks = [slice(start, min(start + rows, count)) for start in range(0, count, rows)]
    parts = list(pool.map(rank, blocks))
    return Ranking(QueryResults.concatenate(parts) if parts else _no_results(), top_index_QK, top_score_QK)


def _rank_rows(  # noqa: PLR0917
    score_BG: np.ndarray, rows: slice, truth: GroundTruth, groups: PersonGroups, top_index_BK: np.ndarray, top_score_BK: np.ndarray
) -> QueryResults:
    """One block: ranks of the matches, then the best few."""
    from reid_ray.retrieval.ranking.exact_kernels import rank_rows, top_rows

    start_B, stop_B = groups.start_Q[rows], groups.stop_Q[rows]
    size_B = stop_B - start_B
    offset_B = np.cumsum(size_B) - size_B
    rank_P = np.zeros(int(size_B.sum()), dtype=np.int64)
    relevant_B, removed_B = np.zeros(len(size_B), dtype=np.int64), np.zeros(len(size_B), dtype=np.int64)
    drop = truth.query_camera_Q is not None
    nobody = np.zeros(1, dtype=np.int64)
    query_camera_B = np.zeros(len(size_B), dtype=np.int64) if truth.query_camera_Q is None else truth.query_camera_Q[rows]
    gallery_camera_G = nobody if truth.gallery_camera_G is None else truth.gallery_camera_G
    largest = int(min(size_B.max(initial=1), _COUNTED_GROUP))
    arguments = (groups.order_G, start_B, stop_B, query_camera_B, gallery_camera_G, drop, largest, offset_B, rank_P, relevant_B, removed_B)
    broken = rank_rows(score_BG, *arguments)
    if broken >= 0:
        raise DataError(f"query {rows.start + broken}: a score is NaN or infinite; check the features with unit_rows")
    for b in np.flatnonzero(size_B > largest):
        members = groups.order_G[start_B[b] : stop_B[b]]
        gone = gallery_camera_G[members] == query_camera_B[b] if drop else np.zeros(len(members), dtype=bool)
        relevant_B[b], removed_B[b] = int((~gone).sum()), int(gone.sum())
        rank_P[offset_B[b] : offset_B[b] + relevant_B[b]] = _ranks_by_sorting(score_BG[b], members[~gone], members[gone])
    if top_index_BK.shape[1]:
        query_person_B = truth.query_person_Q[rows]
        query_person_B = np.where(query_person_B == UNKNOWN, UNKNOWN + 1, query_person_B)  # unknown people are not the same person
        top_rows(score_BG, query_person_B, truth.gallery_person_G, query_camera_B, gallery_camera_G, drop, top_index_BK, top_score_BK)
    return QueryResults.from_ranks(rank_P[rank_P > 0], relevant_B, len(truth.gallery_person_G) - removed_B)


def _ranks_by_sorting(score_G: np.ndarray, positive_P: np.ndarray, removed_R: np.ndarray) -> np.ndarray:
    """Ascending ranks of a person with very many gallery images, from one sort of the row."""
    if not np.isfinite(score_G).all():
        raise DataError("a score is NaN or infinite; check the features with unit_rows")
    ascending_G = np.sort(score_G)
    before_P = len(score_G) - np.searchsorted(ascending_G, score_G[positive_P], side="right")
    equal_P = len(score_G) - np.searchsorted(ascending_G, score_G[positive_P], side="left") - before_P
    if (equal_P > 1).any():  # ties: gallery order decides, which takes a stable sort
        place_G = np.empty(len(score_G), dtype=np.int64)
        place_G[np.argsort(-score_G, kind="stable")] = np.arange(len(score_G))
        before_P, removed_place_R = place_G[positive_P], np.sort(place_G[removed_R])
        return np.sort(before_P - np.searchsorted(removed_place_R, before_P) + 1)
    removed_ascending_R = np.sort(score_G[removed_R])
    removed_before_P = len(removed_R) - np.searchsorted(removed_ascending_R, score_G[positive_P], side="right")
    return np.sort(before_P - removed_before_P + 1)


def _check_shapes(query_shape: tuple[int, ...], gallery_shape: tuple[int, ...], truth: GroundTruth) -> None:
    if len(query_shape) != 2 or len(gallery_shape) != 2 or query_shape[1] != gallery_shape[1]:
        raise DataError(
            f"queries {query_shape} and gallery {gallery_shape} must be matrices of the same width; were they embedded by one encoder?"
        )
    for what, rows, known in (
        ("queries", query_shape[0], len(truth.query_person_Q)),
        ("gallery", gallery_shape[0], len(truth.gallery_person_G)),
    ):
        if rows != known:
            raise DataError(f"{what}: {rows} rows of features but {known} person ids")


def _no_results() -> QueryResults:
    empty = np.zeros(0, dtype=np.int64)
    return QueryResults.from_ranks(empty, empty, empty)
