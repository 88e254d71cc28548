"""Definitions: masks of the protocols, exact chance, refusal of features without a direction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth, QueryResults, similarity_distribution, unit_rows
from reid_ray.retrieval.ranking.mean_sd import mean_similarity_distribution


def test_image_to_image_removes_the_same_person_from_the_same_camera_only():
    truth = GroundTruth.image_to_image([1, 2, UNKNOWN], [1, 1, 2, UNKNOWN], query_camera_Q=[0, 0, 0], gallery_camera_G=[0, 1, 0, 0])
    match_QG, removed_QG = truth.masks()
    assert match_QG.tolist() == [[False, True, False, False], [False] * 4, [False] * 4]
    assert removed_QG.tolist() == [[True, False, False, False], [False, False, True, False], [False] * 4]
    assert GroundTruth.text_to_image([1], [1, 1, 2]).masks()[0].tolist() == [[True, True, False]]
    with refused(DataError, "gallery", "2 person ids", "1 cameras"):
        GroundTruth.image_to_image([1], [1, 1], query_camera_Q=[0], gallery_camera_G=[0])


@pytest.mark.slow
@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 6), st.integers(1, 6))
def test_chance_is_the_mean_r1_over_all_orders(matches, others):
    """Each of the items is first equally often, so R@1 over all orders is exact, not sampled."""
    firsts = [place < matches for place in range(matches + others)]
    results = QueryResults.from_ranks(np.arange(1, matches + 1), np.array([matches]), np.array([matches + others]))
    assert results.chance_r1() == pytest.approx(np.mean(firsts))


def sd_by_hand(cosines, right):
    """SD of one query, item by item."""
    share = [(cosine + 1) / 2 for cosine in cosines]
    ranked = sorted(range(len(share)), key=lambda item: -share[item])  # stable
    found, everything, of_right, terms = 0.0, 0.0, [], []
    for item in ranked:
        everything += share[item]
        if right[item]:
            found += share[item]
            of_right.append(share[item])
            terms.append(found / everything)
    others = [value for item, value in enumerate(share) if not right[item]]
    separation = 1.0 if not others else 1 - math.exp(-(sum(of_right) / len(of_right)) / (sum(others) / len(others)))
    return sum(terms) / len(terms) * separation


@st.composite
def cosines_and_matches(draw):
    """Queries against a gallery of up to 12 items; cosines all differ."""
    queries, items = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return rng.uniform(-0.99, 1, (queries, items)), rng.random((queries, items)) < draw(st.sampled_from([0.2, 0.5, 0.95]))


@settings(max_examples=examples(60), deadline=None)
@given(cosines_and_matches(), st.randoms())
def test_sd_is_its_definition_and_knows_no_order_of_the_gallery(scored, random):
    cosine_QG, match_QG = scored
    sd_Q = similarity_distribution(cosine_QG, match_QG)
    for query, right in enumerate(match_QG):
        if right.any():
            assert sd_Q[query] == pytest.approx(sd_by_hand(cosine_QG[query], right), abs=1e-12)
            assert 0 <= sd_Q[query] <= 1
        else:
            assert np.isnan(sd_Q[query])
    order = list(range(cosine_QG.shape[1]))
    random.shuffle(order)
    np.testing.assert_allclose(similarity_distribution(cosine_QG[:, order], match_QG[:, order]), sd_Q, atol=1e-12)


def test_sd_of_equal_similarities_is_average_precision_by_a_constant():
    """The one average precision, reached from the other side."""
    match_QG = np.random.default_rng(3).random((5, 9)) < 0.4
    match_QG[:, 4] = True
    rank_P = np.concatenate([np.flatnonzero(right) + 1 for right in match_QG])
    results = QueryResults.from_ranks(rank_P, match_QG.sum(axis=1), np.full(5, 9))
    sd_Q = similarity_distribution(np.full((5, 9), 0.3), match_QG)
    np.testing.assert_allclose(sd_Q, results.ap_Q * (1 - math.exp(-1)), atol=1e-12)


def test_msd_is_the_mean_over_queries_whatever_the_blocks():
    rng = np.random.default_rng(1)
    query_QD, gallery_GD = (unit_rows(rng.standard_normal((rows, 6), dtype=np.float32), what="f") for rows in (23, 40))
    truth = GroundTruth.text_to_image(rng.integers(0, 9, 23), rng.integers(0, 8, 40))  # person 8 has no image
    by_hand = [
        sd_by_hand((query @ gallery_GD.T).tolist(), truth.masks()[0][row])
        for row, query in enumerate(query_QD)
        if truth.masks()[0][row].any()
    ]
    for block_bytes in (1, 10_000, 1 << 20):
        assert mean_similarity_distribution(query_QD, gallery_GD, truth, block_bytes=block_bytes) == pytest.approx(
            np.mean(by_hand), abs=1e-6
        )
    with refused(DataError, "no mSD"):
        mean_similarity_distribution(query_QD[:1], gallery_GD, GroundTruth.text_to_image([99], truth.gallery_person_G))


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0.0, "zero vector")], ids=["nan", "inf", "zero"]
)
def test_a_row_without_a_direction_is_refused_by_name(value, said):
    feature_ND = np.ones((5, 4), dtype=np.float32)
    feature_ND[3] = value
    with pytest.raises(DataError, match=rf"the gallery: row 3 \(img-d\).*{said}"):
        unit_rows(feature_ND, what="the gallery", names=["img-a", "img-b", "img-c", "img-d", "img-e"])


def test_rows_are_scaled_to_unit_length_unless_they_have_it():
    rng = np.random.default_rng(0)
    feature_ND = rng.standard_normal((6, 5), dtype=np.float32) * np.array([[1e-25], [1e25], [1], [3], [1e-3], [7]], dtype=np.float32)
    unit_ND = unit_rows(feature_ND, what="f")
    np.testing.assert_allclose(np.linalg.norm(unit_ND.astype(np.float64), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(unit_ND[1] / unit_ND[1, 0], feature_ND[1] / feature_ND[1, 0], rtol=1e-4)
    assert unit_rows(unit_ND, what="f") is unit_ND
