"""The blocked kernels against a brute force that sorts every row, on ties, removals and every degenerate truth."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.retrieval.metrics import UNKNOWN, GroundTruth, QueryResults, unit_rows
from reid_ray.retrieval.ranking import exact as ranking_module
from reid_ray.retrieval.ranking.exact import rank_queries, rank_scores

torch = pytest.importorskip("torch")


def brute_force(score_QG, query_person, gallery_person, query_camera=None, gallery_camera=None):
    """Per query (ap, first rank, last rank, matches, items left, ranked gallery rows), by sorting Python tuples."""
    found = []
    for q, person in enumerate(query_person):
        left = [
            g
            for g in range(len(gallery_person))
            if query_camera is None or not (gallery_person[g] == person and person != UNKNOWN and gallery_camera[g] == query_camera[q])
        ]
        ranked = sorted(left, key=lambda g: (-float(score_QG[q, g]), g))
        ranks = [place for place, g in enumerate(ranked, 1) if gallery_person[g] == person and person != UNKNOWN]
        ap = sum(number / rank for number, rank in enumerate(ranks, 1)) / len(ranks) if ranks else float("nan")
        found.append((ap, ranks[0] if ranks else 0, ranks[-1] if ranks else 0, len(ranks), len(left), ranked))
    return found


def check(ranking, expected, top_k):
    results = ranking.results
    np.testing.assert_allclose(results.ap_Q, [row[0] for row in expected], atol=1e-12)
    for name, column in (("first_rank_Q", 1), ("last_rank_Q", 2), ("relevant_Q", 3), ("candidates_Q", 4)):
        np.testing.assert_array_equal(getattr(results, name), [row[column] for row in expected], err_msg=name)
    for q, row in enumerate(expected):
        best = row[5][:top_k]
        assert ranking.top_index_QK[q].tolist() == best + [-1] * (top_k - len(best))


@st.composite
def problems(draw):
    """Small integer features, so that every score is exact and ties abound; few people and cameras, some unknown."""
    queries, gallery = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    people, cameras = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0, 1, 3, 1000]))  # 0: every score is zero
    query_QD = rng.integers(-spread, spread + 1, (queries, 3)).astype(np.float32)
    gallery_GD = rng.integers(-spread, spread + 1, (gallery, 3)).astype(np.float32)
    query_person = rng.integers(0, people + 1, queries)  # person `people` is never in the gallery
    gallery_person = rng.integers(0, people, gallery)
    if draw(st.booleans()):
        gallery_person[rng.random(gallery) < 0.3] = UNKNOWN
        query_person[rng.random(queries) < 0.3] = UNKNOWN
    camera = (rng.integers(0, cameras, queries), rng.integers(0, cameras, gallery)) if draw(st.booleans()) else None
    return query_QD, gallery_GD, query_person, gallery_person, camera


def truth_of(query_person, gallery_person, camera):
    if camera is None:
        return GroundTruth.text_to_image(query_person, gallery_person)
    return GroundTruth.image_to_image(query_person, gallery_person, query_camera_Q=camera[0], gallery_camera_G=camera[1])


@settings(max_examples=examples(150), deadline=None)
@given(problems(), st.integers(1, 50), st.sampled_from([1, 2, 512]), st.integers(1, 3), st.data())
@pytest.mark.slow
def test_every_path_equals_brute_force(problem, rows, counted_group, threads, data):
    query_QD, gallery_GD, query_person, gallery_person, camera = problem
    truth = truth_of(query_person, gallery_person, camera)
    score_QG = query_QD @ gallery_GD.T
    top_k = data.draw(st.integers(0, len(gallery_person) + 2))
    expected = brute_force(score_QG, query_person, gallery_person, *(camera or ()))
    usual = ranking_module._COUNTED_GROUP
    ranking_module._COUNTED_GROUP = counted_group  # 1 and 2 send most people through the path for very large groups
    try:
        check(
            rank_queries(query_QD, gallery_GD, truth, top_k=top_k, block_bytes=4 * rows * len(gallery_person), threads=threads),
            expected,
            top_k,
        )
        check(rank_scores(score_QG, truth, top_k=top_k, threads=threads), expected, top_k)
    finally:
        ranking_module._COUNTED_GROUP = usual
    from reid_ray.retrieval.ranking.exact_torch import rank_on_device

    on_device = rank_on_device(
        torch.from_numpy(query_QD), torch.from_numpy(gallery_GD), truth, top_k=top_k, block_bytes=28 * rows * len(gallery_person)
    )
    check(on_device, expected, top_k)


def test_all_match_one_match_no_match_and_one_camera():
    rng = np.random.default_rng(3)
    score_QG = rng.random((4, 5000), dtype=np.float32)
    everyone = rank_scores(score_QG, GroundTruth.text_to_image([7] * 4, [7] * 5000)).results
    assert everyone.summary() == {"r1": 1, "r5": 1, "r10": 1, "map": 1, "minp": 1, "chance_r1": 1}
    gallery = np.zeros(5000, dtype=int)
    gallery[4321] = 1
    single = rank_scores(score_QG, GroundTruth.text_to_image([1] * 4, gallery)).results
    np.testing.assert_array_equal(single.first_rank_Q, 1 + (score_QG > score_QG[:, 4321:4322]).sum(1))
    np.testing.assert_allclose(single.ap_Q, 1 / single.first_rank_Q)
    assert single.chance_r1() == 1 / 5000
    with pytest.raises(DataError, match="none of 4 queries has a match"):
        rank_scores(score_QG, GroundTruth.text_to_image([9] * 4, gallery)).results.summary()
    same_camera = GroundTruth.image_to_image([1] * 4, gallery, query_camera_Q=[2] * 4, gallery_camera_G=[2] * 5000)
    assert rank_scores(score_QG, same_camera).results.skipped == 4


def test_equal_scores_rank_in_gallery_order_across_chunks():
    score_QG = np.full((1, 10_000), 0.5, dtype=np.float32)  # several cache chunks, all tied, zeros of both signs
    for value in (0.5, 0.0, -0.0):
        score_QG[:] = value
        score_QG[0, ::2] = -value if value == 0 else value
        ranks = [
            rank_scores(score_QG, GroundTruth.text_to_image([1], np.arange(10_000) == place)).results.first_rank_Q[0] - 1
            for place in (0, 1, 2047, 2048, 2049, 7777, 9999)
        ]
        assert ranks == [0, 1, 2047, 2048, 2049, 7777, 9999]


@pytest.mark.parametrize("rows", [1, 7, 64, 300])
@pytest.mark.slow
def test_blocks_do_not_change_a_result_on_real_valued_features(rows):
    rng = np.random.default_rng(5)
    query_QD = unit_rows(rng.standard_normal((300, 96), dtype=np.float32), what="q")
    gallery_GD = unit_rows(rng.standard_normal((2500, 96), dtype=np.float32), what="g")
    truth = GroundTruth.text_to_image(rng.integers(0, 100, 300), rng.integers(0, 100, 2500))
    whole = rank_queries(query_QD, gallery_GD, truth, top_k=5, block_bytes=1 << 30)
    blocked = rank_queries(query_QD, gallery_GD, truth, top_k=5, block_bytes=4 * rows * 2500)
    np.testing.assert_array_equal(blocked.results.ap_Q, whole.results.ap_Q)
    np.testing.assert_array_equal(blocked.top_score_QK, whole.top_score_QK)
    expected = brute_force(query_QD.astype(np.float64) @ gallery_GD.astype(np.float64).T, truth.query_person_Q, truth.gallery_person_G)
    assert whole.results.mean_ap() == pytest.approx(np.mean([row[0] for row in expected]), abs=1e-6)


def test_scores_that_are_not_finite_are_refused_by_query():
    score_QG = np.zeros((3, 10), dtype=np.float32)
    score_QG[2, 4] = np.nan
    truth = GroundTruth.text_to_image([1, 1, 1], [1] * 10)
    with refused(DataError, "query 2"):
        rank_scores(score_QG, truth, threads=2)
    with pytest.raises(DataError, match="same width"):
        rank_queries(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), truth)
    with refused(DataError, "2", "3 person ids"):
        rank_queries(np.ones((2, 3), np.float32), np.ones((10, 3), np.float32), truth)


@pytest.mark.slow
def test_memory_stays_within_a_block():
    import tracemalloc

    rng = np.random.default_rng(0)
    query_QD, gallery_GD = rng.standard_normal((400, 8), dtype=np.float32), rng.standard_normal((20_000, 8), dtype=np.float32)
    truth = GroundTruth.text_to_image(rng.integers(0, 50, 400), rng.integers(0, 50, 20_000))
    rank_queries(query_QD[:2], gallery_GD, GroundTruth.text_to_image([1, 2], truth.gallery_person_G))  # compile first
    widest = 0
    original = ranking_module._rank_rows

    def watched(score_BG, *rest):
        nonlocal widest
        widest = max(widest, score_BG.base.nbytes if score_BG.base is not None else score_BG.nbytes)
        return original(score_BG, *rest)

    ranking_module._rank_rows = watched
    tracemalloc.start()
    try:
        rank_queries(query_QD, gallery_GD, truth, block_bytes=2 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        ranking_module._rank_rows = original
    assert widest <= 2 << 20
    assert peak < 8 << 20  # beside the block: ranks and groups; the whole matrix would be 32 MB


def test_results_of_ranks_by_hand():
    results = QueryResults.from_ranks(np.array([2, 4, 5]), np.array([3]), np.array([5]))
    assert results.ap_Q[0] == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    assert (results.first_rank_Q[0], results.last_rank_Q[0]) == (2, 5)
    assert results.mean_inp() == pytest.approx(3 / 5)
    np.testing.assert_array_equal(results.cmc(3), [0, 1, 1])
    assert results.chance_r1() == pytest.approx(3 / 5)
