"""8-bit codes say of every vector how far off they are, and of every score by them, and a gallery has them where it has no index."""

import numpy as np
import pyarrow as pa
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from small_galleries import make_gallery

from reid_ray.errors import DataError
from reid_ray.gallery.config import GalleryConfig, NearestConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.nearest.code_scores import CodeScores
from reid_ray.gallery.sealed import segment
from reid_ray.gallery.sealed.codes import Codes, encoded, write_codes


def odd_vectors(seed, dtype):
    """Unit vectors with components that all share, that few share, that lie far out, and rows that are equal."""
    rng = np.random.default_rng(seed)
    count, dim = int(rng.integers(1, 300)), int(rng.integers(1, 40))
    vectors = rng.normal(size=(count, dim)) * rng.choice([0, 1e-6, 1, 30], size=dim) + rng.choice([0, 5], size=dim)
    vectors[rng.random(count) < 0.3] = vectors[0]
    vectors[rng.random(count) < 0.02] = rng.normal(size=dim) * 100
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(dtype)


def codes_of(vectors):
    code_ND = np.empty(vectors.shape, np.int8)
    return Codes.read(code_ND, encoded(vectors, code_ND))


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float16]))
def test_no_vector_is_farther_from_what_its_code_says_than_the_error_and_no_score_than_its_bound(seed, dtype):
    vectors = odd_vectors(seed, dtype)
    codes = codes_of(vectors)
    said = codes.middle_D.astype(np.float64) + codes.step_D.astype(np.float64) * codes.code_ND
    assert np.linalg.norm(vectors.astype(np.float64) - said, axis=1).max() <= codes.error
    toward = vectors.astype(np.float64) - said  # the worst that can be asked: along the difference itself
    rng = np.random.default_rng(seed)
    asked = [toward[rng.integers(len(vectors))], vectors[0].astype(np.float64), rng.normal(size=vectors.shape[1])]
    query_QD = np.array([each / max(np.linalg.norm(each), 1e-30) for each in asked], np.float32)
    found = CodeScores(query_QD, codes)
    true_NQ = vectors.astype(np.float64) @ query_QD.astype(np.float64).T
    for block in found.blocks(None, len(vectors), 64):
        true_BQ = true_NQ[block.first : block.first + len(block.score_BP)]
        assert np.abs(block.score_BP[:, :3] - true_BQ).max() <= found.error


def test_the_error_is_small_beside_what_scores_differ_by():
    vectors = np.random.default_rng(0).normal(size=(5_000, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = codes_of(vectors)
    assert codes.error < 0.01
    assert CodeScores(vectors[:2], codes).error < 0.011


@pytest.mark.parametrize(("kind", "has"), [("flat", True), ("ivf", False)])
def test_a_segment_has_codes_where_it_has_no_index_and_its_hits_are_those_of_one_without(tmp_path, kind, has):
    rng = np.random.default_rng(0)
    vector_ND = rng.normal(size=(200, 16)).astype(np.float32)
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    nearest = NearestConfig() if kind == "flat" else NearestConfig(kind=kind, accelerate_rows=100)
    folder, vectors = tmp_path / "gallery", pa.FixedSizeListArray.from_arrays(pa.array(vector_ND.reshape(-1)), 16)
    create_gallery(folder, dim=16, encoder="e", config=GalleryConfig(nearest=nearest))
    with GalleryWriter(folder) as writer:
        writer.add(pa.table({"item_id": [f"{row}" for row in range(200)], "embedding": vectors}), encoder="e")
        unsealed = writer.view.search(vector_ND[:5], 10, exact=True)
        writer.compact()
    view = GalleryView(folder)
    assert bool(list(folder.rglob("codes.npy"))) == has
    assert [[(hit.item_id, hit.score) for hit in hits] for hits in view.search(vector_ND[:5], 10, exact=True)] == [
        [(hit.item_id, hit.score) for hit in hits] for hits in unsealed
    ]


def test_codes_of_other_vectors_are_found_when_a_segment_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "write_codes", lambda codes, scale, vectors: write_codes(codes, scale, vectors[::-1]))
    vector_ND = np.eye(8, dtype=np.float32)
    folder = make_gallery(tmp_path / "gallery", vector_ND, [{"item_id": f"{row}"} for row in range(8)])
    with GalleryWriter(folder) as writer, refused(DataError, "codes.npy: does not say of rows from 0 on what vectors.npy does"):
        writer.compact()


def test_compacting_gives_a_segment_of_an_older_version_codes_once(tmp_path, monkeypatch):
    folder = make_gallery(tmp_path / "gallery", np.eye(8, dtype=np.float32), [{"item_id": f"{row}"} for row in range(8)])
    with GalleryWriter(folder) as writer:
        with monkeypatch.context() as older:
            older.setattr(segment, "write_codes", lambda *_: None)
            writer.compact()
        before = GalleryView(folder).search(np.eye(8, dtype=np.float32)[:2], 3)
        assert not list(folder.rglob("codes.npy"))
        writer.compact()
        names = [path.parent.name for path in folder.rglob("codes.npy")]
        writer.compact()
        assert [path.parent.name for path in folder.rglob("codes.npy")] == names != []
    after = GalleryView(folder).search(np.eye(8, dtype=np.float32)[:2], 3)
    assert [[(hit.item_id, hit.score) for hit in hits] for hits in after] == [[(hit.item_id, hit.score) for hit in hits] for hits in before]


def test_codes_that_are_not_those_of_the_scale_are_refused(tmp_path):
    write_codes(tmp_path / "codes.npy", tmp_path / "scale.npy", np.eye(3, dtype=np.float32))
    code_ND, scale = np.load(tmp_path / "codes.npy"), np.load(tmp_path / "scale.npy")
    assert Codes.read(code_ND, scale).error >= 0
    for code, other in ((code_ND[:, :2], scale), (code_ND[0], scale), (code_ND.astype(np.int16), scale), (code_ND, scale[:3])):
        with pytest.raises(ValueError, match="with a scale of"):
            Codes.read(code, other)
