"""The gallery index against numpy brute force, its edges, and what it refuses."""

import json

import faiss
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from refusals import refused

from reid_ray.errors import ConfigError, DataError
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.retrieval.index.config import IndexConfig
from reid_ray.retrieval.index.faiss_index import GalleryIndex
from reid_ray.retrieval.index.thumbnails import ROWS_PER_GROUP, ThumbnailReader, ThumbnailWriter

FLAT = IndexConfig()


def unit(rng, count, dim=16):
    vectors = rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def items_of(count, cameras=3):
    rows = [
        {
            "item_id": f"p{i:05d}.jpg",
            "kind": "image",
            "status": "ok",
            "image_id": f"p{i:05d}.jpg",
            "person_id": i // 4,
            "camera_id": i % cameras,
        }
        for i in range(count)
    ]
    return table_of(EMBEDDINGS, rows)


def build(vectors, config=FLAT, **options):
    return GalleryIndex.build(vectors, items_of(len(vectors)), config, encoder_fingerprint="e1", **options)


def brute_force(queries, gallery, k, allowed=None):
    """Scores in float64, rounded once; ties by row."""
    scores, rows = [], []
    for query in queries.astype(np.float64):
        score = np.array([np.sum(vector * query) for vector in gallery.astype(np.float64)]).astype(np.float32)
        ranked = sorted((i for i in range(len(gallery)) if allowed is None or allowed(i)), key=lambda i: (-score[i], i))[:k]
        rows.append(ranked)
        scores.append(score[ranked])
    return np.array(scores), np.array(rows)


class OtherEncoder:
    def __init__(self, dim, fingerprint):
        self.dim, self.fingerprint = dim, fingerprint


@pytest.mark.parametrize("queries", [1, 7, 40])  # FAISS sums in another order from 20 queries on
def test_flat_search_equals_brute_force(queries):
    rng = np.random.default_rng(queries)
    gallery, query = unit(rng, 300), unit(rng, queries)
    scores, rows = build(gallery).search(query, 10)
    expected_scores, expected_rows = brute_force(query, gallery, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


def test_equal_scores_are_ordered_by_row_wherever_the_cut_falls_and_whatever_the_batch():
    rng = np.random.default_rng(5)
    distinct = unit(rng, 6, dim=48)
    gallery = distinct[rng.integers(0, 6, 400)]  # each vector about 67 times
    query = unit(rng, 33, dim=48)
    index = build(gallery)
    for k in (1, 20, 399):
        scores, rows = index.search(query, k)
        np.testing.assert_array_equal(rows, brute_force(query, gallery, k)[1])
        alone_scores, alone_rows = index.search(query[4:5], k)
        np.testing.assert_array_equal(alone_rows[0], rows[4])
        np.testing.assert_array_equal(alone_scores[0], scores[4])


def test_k_beyond_the_gallery_gives_every_item_once():
    rng = np.random.default_rng(1)
    scores, rows = build(unit(rng, 9)).search(unit(rng, 2), 1000)
    assert rows.shape == scores.shape == (2, 9)
    assert sorted(rows[0]) == list(range(9))


def test_camera_filter_equals_brute_force_over_those_cameras_and_counts_k_within_them():
    rng = np.random.default_rng(2)
    gallery, query = unit(rng, 60), unit(rng, 3)
    index = build(gallery)
    for cameras in ([1], [0, 2]):
        _, rows = index.search(query, 8, camera_ids=cameras)
        np.testing.assert_array_equal(rows, brute_force(query, gallery, 8, allowed=lambda i, cams=cameras: i % 3 in cams)[1])
    assert index.search(query, 50, camera_ids=[1])[1].shape == (3, 20)
    assert index.search(query, 5, camera_ids=[99])[1].shape == (3, 0)


def test_a_camera_filter_never_gives_items_of_an_unknown_camera():
    rng = np.random.default_rng(3)
    items = items_of(6)
    items = items.set_column(items.schema.get_field_index("camera_id"), "camera_id", pa.array([0, None, 0, None, 1, 1], pa.int32()))
    index = GalleryIndex.build(unit(rng, 6), items, FLAT, encoder_fingerprint="e1")
    assert set(index.search(unit(rng, 1), 6, camera_ids=[0, 1])[1][0]) == {0, 2, 4, 5}
    assert index.search(unit(rng, 1), 6)[1].shape == (1, 6)


@pytest.mark.parametrize(
    ("config", "least_recall"),
    [
        (IndexConfig(kind="ivf_flat", lists=8, probes=8), 1.0),  # every list is looked into: exact
        (IndexConfig(kind="ivf_flat", lists=16, probes=4), 0.6),
        (IndexConfig(kind="ivf_pq", lists=4, probes=4, code_bytes=8), 0.6),
        (IndexConfig(kind="hnsw", links=16), 0.95),
    ],
    ids=["ivf_flat_all", "ivf_flat", "ivf_pq", "hnsw"],
)
@pytest.mark.slow
def test_approximate_kinds_find_most_of_what_brute_force_finds(config, least_recall, tmp_path):
    rng = np.random.default_rng(4)
    gallery = unit(rng, 700)
    query = unit(rng, 30)
    build(gallery, config).save(tmp_path)
    index = GalleryIndex.load(tmp_path)
    truth = brute_force(query, gallery, 10)[1]
    rows = index.search(query, 10)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, truth, strict=True)])
    assert recall >= least_recall
    filtered = index.search(query, 10, camera_ids=[2])[1]
    assert set(filtered[filtered >= 0] % 3) == {2}


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq"])
def test_the_vectors_that_train_an_index_come_from_the_whole_gallery(kind, monkeypatch):
    """A gallery is sorted: by data set, camera and person. One trained on its front knows nothing of the rest."""
    rng = np.random.default_rng(9)
    gallery = unit(rng, 3000)
    options = {"code_bytes": 4} if kind == "ivf_pq" else {}
    seen = []
    trained = faiss.IndexIVF.train

    def train(self, vectors):
        seen.append(np.array(vectors))
        trained(self, vectors)

    monkeypatch.setattr(faiss.IndexIVF, "train", train)
    build(gallery, IndexConfig(kind=kind, lists=4, train_vectors=600, **options))
    row_of = {vector.tobytes(): row for row, vector in enumerate(gallery)}
    (sample,) = seen
    rows = [row_of[vector.tobytes()] for vector in sample]
    assert len(set(rows)) == 600
    assert np.bincount(np.array(rows) // 500, minlength=6).min() > 60  # 100 of each sixth, were they drawn evenly


def test_an_approximate_search_says_what_it_did_not_find():
    rng = np.random.default_rng(4)
    index = build(unit(rng, 400), IndexConfig(kind="ivf_flat", lists=10, probes=1))
    scores, rows = index.search(unit(rng, 5), 400)
    assert (rows == -1).any()
    assert np.isneginf(scores[rows == -1]).all()
    assert all(len(set(found[found >= 0])) == (found >= 0).sum() for found in rows)


def test_a_saved_index_answers_as_before(tmp_path):
    rng = np.random.default_rng(6)
    gallery, query = unit(rng, 50), unit(rng, 4)
    built = build(gallery, encoder_path="/models/m")
    built.save(tmp_path)
    loaded = GalleryIndex.load(tmp_path, OtherEncoder(16, "e1"))
    for before, after in zip(built.search(query, 7), loaded.search(query, 7), strict=True):
        np.testing.assert_array_equal(before, after)
    assert loaded.items.equals(built.items)
    assert loaded.encoder_path == "/models/m"


@pytest.mark.parametrize(
    ("encoder", "both"),
    [
        (OtherEncoder(32, "e1"), ("16", "32")),
        (OtherEncoder(16, "e2"), ("e1", "e2")),
    ],
)
def test_an_index_of_another_encoder_is_refused_and_both_are_named(encoder, both, tmp_path):
    build(unit(np.random.default_rng(0), 5)).save(tmp_path)
    with refused(DataError, str(tmp_path), *both):
        GalleryIndex.load(tmp_path, encoder)


@pytest.mark.parametrize("damage", ["missing", "truncated", "other_size", "not_json"])
def test_a_damaged_index_folder_is_refused_with_its_name(damage, tmp_path):
    build(unit(np.random.default_rng(0), 5)).save(tmp_path)
    if damage == "missing":
        (tmp_path / "index.faiss").unlink()
    elif damage == "truncated":
        (tmp_path / "index.faiss").write_bytes((tmp_path / "index.faiss").read_bytes()[:60])
    elif damage == "other_size":
        facts = json.loads((tmp_path / "index.json").read_text())
        (tmp_path / "index.json").write_text(json.dumps(facts | {"items": 6}))
    else:
        (tmp_path / "index.json").write_text("{")
    with refused(DataError, str(tmp_path), "index job"):
        GalleryIndex.load(tmp_path)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 3.0])
def test_a_vector_that_is_not_of_length_one_is_refused_with_its_row(value):
    vectors = unit(np.random.default_rng(0), 5)
    vectors[3] = value
    with refused(DataError, "gallery row 3", "p00003.jpg"):
        build(vectors)
    with refused(DataError, "query 3"):
        build(unit(np.random.default_rng(0), 5)).search(vectors, 1)


def test_what_cannot_be_an_index_is_refused():
    rng = np.random.default_rng(0)
    with refused(DataError, "gallery"):
        build(np.zeros((0, 16), np.float32))
    with refused(DataError, "5", "(4, 16)"):
        GalleryIndex.build(unit(rng, 4), items_of(5), FLAT, encoder_fingerprint="e1")
    with refused(DataError, "p00001.jpg", "2 times"):
        GalleryIndex.build(unit(rng, 3), items_of(5).take([0, 1, 1]), FLAT, encoder_fingerprint="e1")
    with refused(DataError, "(1, 8)", "16"):
        build(unit(rng, 4)).search(unit(rng, 1, dim=8), 1)
    with refused(ConfigError, "k is 0"):
        build(unit(rng, 4)).search(unit(rng, 1), 0)
    for config in (
        IndexConfig(kind="ivf_flat", lists=50),
        IndexConfig(kind="ivf_pq", code_bytes=8),
        IndexConfig(kind="ivf_pq", code_bytes=7, lists=1),
    ):
        with refused(ConfigError, "index."):
            build(unit(rng, 40), config)


def test_a_parameter_that_the_kind_ignores_is_refused():
    with pytest.raises(ValidationError, match="probes is set, but kind flat does not use it"):
        IndexConfig(kind="flat", probes=3)
    config = IndexConfig(kind="ivf_pq", probes=3)
    assert IndexConfig.model_validate(config.model_dump()) == config


def test_thumbnails_come_back_by_row_across_row_groups(tmp_path):
    pictures = [f"jpeg {i}".encode() for i in range(2 * ROWS_PER_GROUP + 5)]
    ids = [f"i{i}" for i in range(len(pictures))]
    with ThumbnailWriter(tmp_path) as writer:
        for at in range(0, len(ids), 50):
            writer.append(pa.chunked_array([ids[at : at + 50]]), pa.chunked_array([pictures[at : at + 50]]))
    reader = ThumbnailReader(tmp_path)
    assert [reader[row] for row in range(len(reader))] == pictures
    for row in (-1, len(pictures)):
        with pytest.raises(IndexError):
            reader[row]
