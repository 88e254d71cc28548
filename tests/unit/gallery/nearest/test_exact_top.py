"""Exact nearest neighbours beside sums in float64 over every row: duplicates, near duplicates, masks, several places, both precisions."""

import numpy as np
import pytest

from reid_ray.gallery.nearest import code_scores
from reid_ray.gallery.nearest import exact_top as module
from reid_ray.gallery.nearest.exact_top import Place, exact_top
from reid_ray.gallery.sealed.codes import Codes, encoded
from reid_ray.gallery.sealed.twins import NO_TWINS, Twins, twin_groups


def unit(rng, count, dim):
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def crowd(rng, count, dim):
    """Vectors of which many are equal, and many differ from another one in the last bit of one component."""
    vectors = unit(rng, count, dim)
    copies = rng.random(count) < rng.choice([0.0, 0.3, 0.9])
    vectors[copies] = vectors[rng.integers(3, size=np.count_nonzero(copies))]
    for row in np.flatnonzero(rng.random(count) < rng.choice([0.0, 0.3])):
        at = rng.integers(dim)
        vectors[row] = vectors[rng.integers(3)]
        vectors[row, at] = np.nextafter(vectors[row, at], np.float32(rng.choice([-2, 2])))
    return vectors


def coded(vectors):
    code_ND = np.empty(vectors.shape, np.int8)
    return Codes.read(code_ND, encoded(vectors, code_ND))


def summed_again(monkeypatch):
    """How many rows each search sums again, from now on."""
    summed, scores = [], module.scores
    monkeypatch.setattr(module, "scores", lambda vectors, row_N, *asked: summed.append(len(row_N)) or scores(vectors, row_N, *asked))
    return summed


def by_brute_force(query_D, places, k):
    rows = [(number, row) for number, place in enumerate(places) for row in range(len(place.vectors))]
    rows = [(number, row) for number, row in rows if places[number].passing is None or places[number].passing[row]]
    score = [np.float32(places[number].vectors[row].astype(np.float64) @ query_D.astype(np.float64)) for number, row in rows]
    order = np.argsort(-np.array(score), kind="stable")[:k]
    return [rows[at] for at in order], [score[at] for at in order]


@pytest.mark.parametrize("seed", range(60))
def test_the_best_are_those_of_sums_in_float64_in_the_order_of_places(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(module, "_ROWS_A_HIT", 0)
    monkeypatch.setattr(module, "_MANY", int(rng.choice([4_096, 20])))  # with few candidates: BLAS after all
    dim, dtype = int(rng.choice([3, 16, 65])), rng.choice([np.float32, np.float16])
    places = []
    for count in rng.integers(0, 700, size=rng.integers(1, 4)):
        vectors = crowd(rng, count, dim).astype(dtype)
        passing = None if rng.random() < 0.4 else rng.random(count) < rng.choice([0.05, 0.5, 0.95])
        told = rng.random() < 0.7
        codes = coded(vectors) if len(vectors) and rng.random() < 0.7 else None
        places.append(Place(vectors, passing, Twins.read(twin_groups(vectors)) if told else NO_TWINS, codes))
    queries = [vectors[:2].astype(np.float32) for vectors in (place.vectors for place in places) if len(vectors)]
    query_QD = np.concatenate([unit(rng, 2, dim), *queries])
    k = int(rng.choice([1, 5, 30, 3_000]))
    score_QK, place_QK, row_QK = exact_top(query_QD, places, k)
    for query_D, *found in zip(query_QD, score_QK, place_QK, row_QK, strict=True):
        rows, score = by_brute_force(query_D, places, k)
        assert list(zip(found[1].tolist(), found[2].tolist(), strict=True)) == rows
        assert found[0].tolist() == score


@pytest.mark.parametrize("share", [0.02, 0.6])
@pytest.mark.parametrize("queries", [1, 3, 5, 17])
@pytest.mark.parametrize("threads", [1, 3])
def test_codes_find_what_vectors_find_by_any_number_of_threads_and_queries(monkeypatch, queries, threads, share):
    monkeypatch.setattr(code_scores, "_threads", lambda products: threads)
    monkeypatch.setattr(module, "_ROWS_A_HIT", 0)
    rng = np.random.default_rng(queries)
    vectors, query_QD = unit(rng, 40_000, 24), unit(rng, queries, 24)
    passing = rng.random(len(vectors)) < share
    bare, by_codes = (exact_top(query_QD, [Place(vectors, passing, NO_TWINS, codes)], 20) for codes in (None, coded(vectors)))
    for one, other in zip(bare, by_codes, strict=True):
        assert np.array_equal(one, other)


def test_few_rows_are_summed_again_and_a_lone_component_far_from_the_others_does_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_000, 512)).astype(np.float32)
    vectors[:, 7] += 60  # encoders have such components
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    summed = summed_again(monkeypatch)
    exact_top(vectors[:1], [Place(vectors, None, NO_TWINS, coded(vectors))], 20)
    assert 20 <= sum(summed) < 1_000


def test_where_all_vectors_are_alike_no_more_are_summed_again_than_without_codes(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = 1 + 0.05 * rng.normal(size=(20_000, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes, summed = coded(vectors), summed_again(monkeypatch)
    alike = module._candidates(vectors[:1], [Place(vectors, codes=codes)], [len(vectors)], np.array([0]), k=20, by_codes=True) is None
    found = [exact_top(vectors[:1], [Place(vectors, None, NO_TWINS, each)], 20) for each in (codes, None)]
    assert alike
    assert summed[0] == summed[1] < 100
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


def test_the_error_of_one_place_widens_no_other_and_places_in_which_nothing_passes_are_not_looked_at(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, rough = unit(rng, 20_000, 64), unit(rng, 100, 64)
    rough[0] = np.eye(64, dtype=np.float32)[0]
    nothing, summed = np.zeros(20_000, np.bool_), summed_again(monkeypatch)
    monkeypatch.setattr(module, "_ROWS_A_HIT", 0)
    for places in (
        [Place(vectors), Place(rough, None, NO_TWINS, coded(rough))],
        [Place(vectors), Place(vectors, nothing, NO_TWINS, coded(vectors))],
    ):
        summed.clear()
        exact_top(vectors[:1], places, 20)
        assert sum(summed) < 150
    asked = []
    monkeypatch.setattr(module, "CodeScores", lambda *words: asked.append(words) or code_scores.CodeScores(*words))
    exact_top(vectors[:1], [Place(vectors, nothing, NO_TWINS, coded(vectors)), Place(vectors, None, NO_TWINS, coded(vectors))], 20)
    assert len(asked) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_of_a_hundred_thousand_equal_vectors_no_more_are_summed_again_than_of_none(monkeypatch, dtype):
    rng = np.random.default_rng(0)
    vectors = unit(rng, 120_000, 8).astype(dtype)
    vectors[::2] = vectors[0]
    summed = summed_again(monkeypatch)
    found = exact_top(vectors[:1].astype(np.float32), [Place(vectors, None, Twins.read(twin_groups(vectors)))], 20)[2]
    assert found.tolist() == [list(range(0, 40, 2))]
    assert sum(summed) < 100


def test_twins_are_rows_of_equal_bytes_and_no_others():
    rng = np.random.default_rng(1)
    for _ in range(30):
        vectors = crowd(rng, 200, 5).astype(rng.choice([np.float32, np.float16]))
        vectors[3], vectors[4] = 0.0, -0.0  # equal numbers of different bytes
        group_N = Twins.read(twin_groups(vectors)).group_N
        groups = {}
        for row, vector in enumerate(vectors):
            groups.setdefault(vector.tobytes(), []).append(row)
        shared = [rows for rows in groups.values() if len(rows) > 1]
        if not shared:
            assert not len(group_N)
            continue
        assert sorted(np.flatnonzero(group_N == number).tolist() for number in range(group_N.max() + 1)) == sorted(shared)


def test_a_group_that_came_while_we_search_does_no_harm():
    vectors = np.repeat(unit(np.random.default_rng(0), 1, 4), 50, axis=0)
    growing = Twins(np.full(50, 7, np.int32), 0)
    assert exact_top(vectors[:1], [Place(vectors, None, growing)], 3)[2].tolist() == [[0, 1, 2]]
