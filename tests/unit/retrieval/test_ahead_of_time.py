"""Whoever has set up an environment compiles nothing by a search or an evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
from small_galleries import make_gallery

from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.retrieval import ahead_of_time
from reid_ray.retrieval.ahead_of_time import compile_kernels
from reid_ray.retrieval.metrics import GroundTruth
from reid_ray.retrieval.ranking.exact import rank_queries, rank_scores
from reid_ray.retrieval.ranking.k_reciprocal import Reranker


def compiled():
    """Types of arguments that the package's kernels are compiled for, by kernel."""
    kernels = set(ahead_of_time._kernels())
    return {f"{kernel.py_func.__module__}.{kernel.py_func.__name__}": set(kernel.signatures) for kernel in kernels}


def unit_vectors(count, dim):
    vector_ND = np.random.default_rng(1).standard_normal((count, dim), np.float32)
    return vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("has_searched", "misses", "compiles"),
    [(True, {}, False), (True, {"a kernel's types": 1}, True), (False, {}, True)],
    ids=["all were there", "one was compiled for the first search", "nothing was searched yet"],
)
def test_a_service_compiles_before_it_is_ready_what_set_up_has_not(monkeypatch, has_searched, misses, compiles):
    done = []
    monkeypatch.setattr(ahead_of_time, "compile_kernels", lambda: done.append(True))
    kernels = [SimpleNamespace(stats=SimpleNamespace(cache_misses=found)) for found in ({}, misses)]
    monkeypatch.setattr(ahead_of_time, "_kernels", lambda: iter(kernels))
    ahead_of_time.compile_before_others_wait(has_searched=has_searched)
    assert bool(done) == compiles


@pytest.mark.slow
def test_after_it_a_search_and_an_evaluation_compile_nothing(tmp_path):
    compile_kernels()
    before = compiled()
    assert sum(map(bool, before.values())) > 10
    vector_ND = unit_vectors(300, 32)
    folder = make_gallery(tmp_path / "gallery", vector_ND, [{"item_id": f"{row}", "person_id": row % 9} for row in range(300)])
    with GalleryWriter(folder) as writer:
        writer.delete(["1", "2"])
        writer.compact()
        writer.view.search(vector_ND[:1], 10)
    view = GalleryView(folder)
    view.refresh()
    view.search(vector_ND[:40], 10, one_per="person_id")
    view.page(view.query_like(["5"], unlike=["6"]), 3, where={"person_id": [1, 2]})
    person_N = np.arange(300) % 60
    truth = GroundTruth.image_to_image(person_N[:50], person_N, query_camera_Q=person_N[:50] % 2, gallery_camera_G=np.arange(300) % 2)
    rank_queries(vector_ND[:50], vector_ND, truth, top_k=3)
    rank_scores(vector_ND[:50] @ vector_ND.T, GroundTruth.text_to_image(person_N[:50], person_N))
    Reranker(vector_ND[:50], vector_ND, k1=10, k2=3).distances(slice(10, 20))
    assert compiled() == before
