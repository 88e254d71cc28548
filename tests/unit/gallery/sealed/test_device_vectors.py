"""A torch device that compares every vector finds what the search without one finds, to the last bit; here the device is the CPU."""

import numpy as np
import pytest
import torch
from gallery_pair import unit
from on_device import answers, check_same_answers, filled
from pydantic import ValidationError

from reid_ray.gallery.config import NearestConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.sealed import segment
from reid_ray.gallery.sealed.device_vectors import DeviceVectors
from reid_ray.serve.config import ServeJob

FLAT = NearestConfig()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("duplicates", [0.0, 0.5])
def test_a_gallery_on_a_device_gives_the_answers_of_one_without(tmp_path, dtype, duplicates):
    check_same_answers(tmp_path / "gallery", "cpu", dtype=dtype, duplicates=duplicates)


@pytest.mark.parametrize("share", [None, 0.9, 0.3, 0.001])
def test_the_best_are_among_the_candidates_and_these_are_few(share):
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, 150_000, 16), unit(rng, 5, 16)
    mask = None if share is None else rng.random(len(vectors)) < share
    on_device = DeviceVectors(vectors, "cpu")
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    if mask is not None:
        scores[:, ~mask] = -2
    for found, score_N in zip(on_device.candidates(queries, 20, mask, FLAT), scores, strict=True):
        assert set(np.argsort(-score_N)[:20]) <= set(found.tolist())
        assert 20 <= len(found) < 40
        assert (np.diff(found) > 0).all()
    assert [found.tolist() for found in on_device.candidates(queries, 20, np.zeros(len(vectors), np.bool_), FLAT)] == [[]] * 5


def test_of_more_equal_vectors_than_candidates_none_are_named():
    vectors = unit(np.random.default_rng(0), 2_000, 16)
    vectors[::2] = vectors[0]
    near, far = DeviceVectors(vectors, "cpu").candidates(np.stack([vectors[0], -vectors[0]]), 5, None, FLAT)
    assert near is None
    assert len(far) >= 5


def test_what_does_not_fit_on_the_device_is_searched_without_it_and_said_once(tmp_path, monkeypatch, capsys):
    def no_room(*_):
        raise torch.OutOfMemoryError("no room")

    vectors = filled(tmp_path / "gallery", rows=600, dim=16, dtype="float32", duplicates=0, segment_rows=500)
    monkeypatch.setattr(segment, "DeviceVectors", no_room)
    view = GalleryView(tmp_path / "gallery", device="cpu")
    assert answers(view, vectors[:2], 5) == answers(GalleryView(tmp_path / "gallery"), vectors[:2], 5)
    assert capsys.readouterr().out.count("do not fit on cpu") == len(view.parts()) - 1


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"searcher": {"gallery_on_gpu": True}}, "num_gpus"),
        ({"searcher": {"gallery_on_gpu": True, "num_gpus": 1}, "shares": {"count": 2}}, "shares"),
    ],
)
def test_a_gallery_on_a_gpu_that_is_not_there_and_shares_of_one_are_refused(keys, named):
    with pytest.raises(ValidationError) as caught:
        ServeJob.model_validate({"index": "gallery", "runs_on": "ray", **keys})
    assert named in str(caught.value)
