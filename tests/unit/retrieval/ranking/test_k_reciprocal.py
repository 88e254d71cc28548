"""Sparse re-ranking against the algorithm written out densely, step by step as the paper has it."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.retrieval.ranking.k_reciprocal import Reranker


def dense_reranking(query_QD, gallery_GD, k1, k2, lambda_value):
    """Zhong et al. 2017 with N x N matrices and Python sets, in float64."""
    x = np.concatenate([query_QD, gallery_GD]).astype(np.float64)
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    distance = squared / squared.max(axis=1, keepdims=True)
    order = np.argsort(distance, axis=1, kind="stable")
    count = len(x)

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    v = np.zeros((count, count))
    for i in range(count):
        base = reciprocal(i, k1)
        expanded = set(base)
        for candidate in base:
            half = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(half & base) > 2 / 3 * len(half):
                expanded |= half
        members = sorted(expanded)
        v[i, members] = np.exp(-distance[i, members])
        v[i] /= v[i].sum()
    v = np.stack([v[order[i, :k2]].mean(axis=0) for i in range(count)])
    smaller = np.minimum(v[:, None], v[None]).sum(-1)
    larger = np.maximum(v[:, None], v[None]).sum(-1)
    mixed = (1 - lambda_value) * (1 - smaller / larger) + lambda_value * distance
    return mixed[: len(query_QD), len(query_QD) :]


def people(seed, queries=20, gallery=110, persons=15, dim=12, noise=0.6):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((persons, dim))
    draw = lambda n: (centre[rng.integers(0, persons, n)] + noise * rng.standard_normal((n, dim))).astype(np.float32)  # noqa: E731
    return draw(queries), draw(gallery)


@pytest.mark.parametrize(("k1", "k2", "lambda_value"), [(20, 6, 0.3), (7, 3, 0.0), (5, 1, 0.5), (1, 1, 1.0), (11, 20, 0.3)])
@pytest.mark.parametrize("rows", [1, 17, 1000])
@pytest.mark.slow
def test_sparse_equals_dense(k1, k2, lambda_value, rows):
    query_QD, gallery_GD = people(seed=k1)
    expected_QG = dense_reranking(query_QD, gallery_GD, k1, k2, lambda_value)
    reranker = Reranker(query_QD, gallery_GD, k1=k1, k2=k2, lambda_value=lambda_value, block_bytes=8 * rows * 130)
    np.testing.assert_allclose(reranker.distances(), expected_QG, atol=2e-5)
    np.testing.assert_array_equal(reranker.distances(slice(3, 9)), reranker.distances()[3:9])


@pytest.mark.slow  # it compiles the kernels
def test_ties_and_duplicates_equal_dense():
    rng = np.random.default_rng(1)
    query_QD, gallery_GD = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (9, 60))
    np.testing.assert_allclose(
        Reranker(query_QD, gallery_GD, k1=6, k2=3).distances(), dense_reranking(query_QD, gallery_GD, 6, 3, 0.3), atol=2e-5
    )


@pytest.mark.slow
def test_reranking_helps_where_neighbours_agree():
    from reid_ray.retrieval.metrics import GroundTruth
    from reid_ray.retrieval.ranking.exact import rank_scores

    rng = np.random.default_rng(0)
    centre, person = rng.standard_normal((30, 16)), np.repeat(np.arange(30), 12)
    features = (centre[person] + 1.1 * rng.standard_normal((360, 16))).astype(np.float32)
    query, gallery = np.arange(360) % 12 == 0, np.arange(360) % 12 != 0
    truth = GroundTruth.text_to_image(person[query], person[gallery])
    squared = ((features[query][:, None] - features[gallery][None]) ** 2).sum(-1)
    plain = rank_scores(-squared, truth).results.mean_ap()
    reranked = rank_scores(-Reranker(features[query], features[gallery]).distances(), truth).results.mean_ap()
    assert reranked > plain + 0.03


def test_too_few_or_equal_items_are_refused():
    with refused(DataError, "k1 20"):
        Reranker(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32))
    with pytest.raises(DataError, match="all features are equal"):
        Reranker(np.ones((4, 3), np.float32), np.ones((30, 3), np.float32))
