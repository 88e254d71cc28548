"""Definitions: masks of the protocols, exact chance, refusal of features without a direction."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth, QueryResults, unit_rows


def test_image_to_image_removes_the_same_person_from_the_same_camera_only():
    truth = GroundTruth.image_to_image([1, 2, UNKNOWN], [1, 1, 2, UNKNOWN], query_camera_Q=[0, 0, 0], gallery_camera_G=[0, 1, 0, 0])
    match_QG, removed_QG = truth.masks()
    assert match_QG.tolist() == [[False, True, False, False], [False] * 4, [False] * 4]
    assert removed_QG.tolist() == [[True, False, False, False], [False, False, True, False], [False] * 4]
    assert GroundTruth.text_to_image([1], [1, 1, 2]).masks()[0].tolist() == [[True, True, False]]
    with refused(DataError, "gallery", "2 person ids", "1 cameras"):
        GroundTruth.image_to_image([1], [1, 1], query_camera_Q=[0], gallery_camera_G=[0])


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 6), st.integers(1, 6))
def test_chance_is_the_mean_r1_over_all_orders(matches, others):
    """Each of the items is first equally often, so R@1 over all orders is exact, not sampled."""
    firsts = [place < matches for place in range(matches + others)]
    results = QueryResults.from_ranks(np.arange(1, matches + 1), np.array([matches]), np.array([matches + others]))
    assert results.chance_r1() == pytest.approx(np.mean(firsts))


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
