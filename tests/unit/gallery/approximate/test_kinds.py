"""Approximate kinds beside exact search: recall under filters, k distinct hits, equal vectors, and codes after an erasure."""

import hashlib

import faiss
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.gallery.approximate.accelerator import Accelerator, accelerator_name, write_accelerator
from reid_ray.gallery.config import GalleryConfig, NearestConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.nearest.best_of_parts import Searched, best_of_parts
from reid_ray.gallery.nearest.exact_top import Place, exact_top
from reid_ray.gallery.sealed.twins import NO_TWINS, Twins, twin_groups

KINDS = {
    "ivf": NearestConfig(kind="ivf", probes=4, accelerate_rows=1),
    "ivf_rabitq": NearestConfig(kind="ivf_rabitq", probes=4, accelerate_rows=1),
    "hnsw": NearestConfig(kind="hnsw", links=12, build_depth=40, search_depth=24, accelerate_rows=1),
}
N, DIM, K = 6_000, 32, 20


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def crowd():
    """Vectors around a centre for each thirty, as persons have several pictures, and two hundred queries around the same centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N // 30, DIM))
    near = centres[rng.integers(len(centres), size=N + 200)] + rng.normal(size=(N + 200, DIM))
    return unit(near[:N]), unit(near[N:])


@pytest.fixture(scope="module")
def accelerators(crowd, tmp_path_factory):
    made = {}
    for kind, config in KINDS.items():
        path = tmp_path_factory.mktemp(kind) / accelerator_name(kind)
        write_accelerator(path, crowd[0], NO_TWINS, config)
        made[kind] = Accelerator(path, N, NO_TWINS)
    return made


def recall(found, wanted):
    return np.mean([len(set(one) & set(other)) / len(other) for one, other in zip(found.tolist(), wanted.tolist(), strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_recall_under_every_filter_is_that_without_one_or_higher(accelerators, crowd, kind):
    vectors, queries = crowd
    rng, reached = np.random.default_rng(1), {}
    for share in (1, 0.5, 0.1, 0.01, 0.001):
        place = Place(vectors, rng.random(N) < share)
        score_QK, _, row_QK = best_of_parts(queries, [Searched(place, accelerators[kind])], K, KINDS[kind])
        assert all(len(set(row_K)) == len(row_K) == min(K, np.count_nonzero(place.passing)) for row_K in row_QK.tolist())
        assert place.passing[row_QK].all()
        assert np.allclose(score_QK, np.einsum("qd,qkd->qk", queries, vectors[row_QK]), atol=1e-5)
        reached[share] = recall(row_QK, exact_top(queries, [place], K)[2])
    assert 0.6 < reached[1] < 0.999  # it is approximate, else this shows nothing
    assert min(reached.values()) >= reached[1], reached


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_that_passes_only_what_is_far_from_the_query_still_gives_its_best(accelerators, crowd, kind):
    vectors, queries = crowd
    found, wanted = [], []
    for query_D in queries[:40]:
        place = Place(vectors, (vectors @ query_D) < 0.0)  # about half of all, nothing near
        found.append(best_of_parts(query_D[None], [Searched(place, accelerators[kind])], K, KINDS[kind])[2][0])
        wanted.append(exact_top(query_D[None], [place], K)[2][0])
        assert place.passing[found[-1]].all()
        assert len(set(found[-1].tolist())) == K
    assert recall(np.array(found), np.array(wanted)) > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passing", [0, 1, 7, 19, 20, 21, 700])
def test_however_few_pass_there_are_k_distinct_hits_or_all_that_pass(accelerators, crowd, kind, passing):
    vectors, queries = crowd
    mask = np.zeros(N, np.bool_)
    mask[np.random.default_rng(passing).choice(N, passing, replace=False)] = True
    for k in (1, K, 500):
        row_QK = best_of_parts(queries[:9], [Searched(Place(vectors, mask), accelerators[kind])], k, KINDS[kind])[2]
        assert row_QK.shape == (9, min(k, passing))
        assert all(len(set(row_K)) == len(row_K) for row_K in row_QK.tolist())
        assert mask[row_QK].all()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_come_in_the_order_of_adding_whichever_of_them_pass(tmp_path, crowd, kind):
    vectors = crowd[0].copy()
    vectors[::2] = vectors[1]
    twins = Twins.read(twin_groups(vectors))
    path = tmp_path / accelerator_name(kind)
    write_accelerator(path, vectors, twins, KINDS[kind])
    assert faiss.read_index(str(path)).ntotal == N // 2  # each vector once
    accelerator = Accelerator(path, N, twins)
    for without in ([], [0, 1, 4], list(range(0, 5_000, 2))):
        mask = np.ones(N, np.bool_)
        mask[without] = False
        place = Place(vectors, mask, twins)
        found = best_of_parts(vectors[1:2], [Searched(place, accelerator)], K, KINDS[kind])
        assert found[2].tolist() == exact_top(vectors[1:2], [place], K)[2].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_deleted_is_not_found_and_what_is_added_since_is(tmp_path, crowd, kind):
    vectors, queries = crowd
    gallery = tmp_path / "gallery"
    filled(gallery, vectors[:2_000], KINDS[kind])
    with GalleryWriter(gallery) as writer:
        hits = writer.view.search(queries[:5], K)
        gone = {hit.item_id for found in hits for hit in found[:10]}
        writer.delete(sorted(gone))
        writer.add(table(["new"], queries[:1]), encoder="e")
        for exact in (False, True):
            again = writer.view.search(queries[:5], K, exact=exact)
            assert not gone & {hit.item_id for found in again for hit in found}
            assert again[0][0].item_id == "new"
            assert [len({hit.item_id for hit in found}) for found in again] == [K] * 5


def table(ids, vectors):
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return pa.table({"item_id": ids, "embedding": array})


def filled(folder, vectors, nearest):
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(nearest=nearest, segment_rows=1_000))
    with GalleryWriter(folder) as writer:
        for start in range(0, len(vectors), 500):
            ids = [f"item {number}" for number in range(start, min(start + 500, len(vectors)))]
            writer.add(table(ids, vectors[start : start + 500]), encoder="e")
        writer.seal()
        writer.compact()


def codes(folder):
    """Every vector that an index of the gallery still holds, as it can be made again from its code."""
    found = []
    for path in folder.rglob("*.faiss"):
        index = faiss.read_index(str(path))
        if isinstance(index, (faiss.IndexIVF, faiss.IndexPreTransform)):
            faiss.extract_index_ivf(index).make_direct_map()
        found.append(index.reconstruct_n(0, index.ntotal))
    return unit(np.concatenate(found))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_erased_vector_is_in_no_index_and_no_cluster_was_trained_on_it(tmp_path, crowd, kind):
    vectors = crowd[0][:1_500].copy()
    vectors[700:703] = unit(np.eye(DIM)[:3] * 30 + vectors[700:703])  # like nobody else
    filled(tmp_path / "gallery", vectors, KINDS[kind])
    least = 0.5 if kind == "ivf_rabitq" else 0.95  # a bit a component says little of a vector alone
    assert (codes(tmp_path / "gallery") @ vectors[700:703].T).max(axis=0).min() > least
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.erase([f"item {number}" for number in range(700, 703)])
        writer.carry_out_erasures()
    assert (codes(tmp_path / "gallery") @ vectors[700:703].T).max() < 0.9
    if kind != "hnsw":  # threads build a graph in any order
        without = [number for number in range(1_500) if not 700 <= number < 703]
        create_gallery(tmp_path / "never", dim=DIM, encoder="e", config=GalleryConfig(nearest=KINDS[kind]))
        with GalleryWriter(tmp_path / "never") as writer:
            writer.add(table([f"item {number}" for number in without], vectors[without]), encoder="e")
            writer.seal()
        assert contents(tmp_path / "gallery") == contents(tmp_path / "never")


def contents(folder):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.faiss")]


def test_a_damaged_index_is_named_and_a_parameter_of_another_kind_is_refused(tmp_path, crowd):
    filled(tmp_path / "gallery", crowd[0][:500], KINDS["ivf"])
    path = next((tmp_path / "gallery").rglob("*.faiss"))
    path.chmod(0o644)
    path.write_bytes(b"no index" + path.read_bytes()[8:])
    with refused(DataError, "ivf.faiss"):
        GalleryView(tmp_path / "gallery").search(crowd[1][:1], 3)
    assert GalleryView(tmp_path / "gallery").search(crowd[1][:1], 3, exact=True)
    with pytest.raises(ValidationError) as caught:
        NearestConfig(kind="hnsw", probes=3)
    assert "probes" in str(caught.value)
