"""Which pictures are asked about: near duplicates among many, and what could not be looked at, counted."""

from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawn_crops import near_duplicate_crops

from reid_ray.data import fetch
from reid_ray.data.images import decode_image
from reid_ray.data.perceptual_hash import NEAR_BITS, picture_hash
from reid_ray.records import EMBEDDINGS, IMAGES, table_of
from reid_ray.retrieval.index.near_hashes import best_near_pairs
from reid_ray.serve.same_person.hashed_pictures import hashed_pictures
from reid_ray.serve.same_person.look_alikes import look_alikes, passed_over_in_words

HOW = {"embeddings": None, "neighbours": 3, "least": 0.5, "most": 100, "tracks": False}


def some_hashes(groups, rng):
    """Hashes in groups whose members differ in a few bits or none, shuffled."""
    rows = []
    for _ in range(groups):
        base = rng.integers(0, 256, 16, np.uint8)
        for _ in range(int(rng.integers(1, 5))):
            bits = np.unpackbits(base)
            bits[rng.choice(128, int(rng.integers(0, 5)), replace=False)] ^= 1
            rows.append(np.packbits(bits))
    return np.array(rows)[rng.permutation(len(rows))]


def test_near_pairs_are_those_of_comparing_all_with_all_but_equal_rows_stand_for_each_other(monkeypatch):
    monkeypatch.setattr("reid_ray.retrieval.index.near_hashes._BLOCK", 7)
    hash_NB = some_hashes(30, np.random.default_rng(0))
    first_of = [next(j for j in range(i + 1) if (hash_NB[j] == hash_NB[i]).all()) for i in range(len(hash_NB))]
    wanted = []
    for i, j in combinations(range(len(hash_NB)), 2):
        bits = int(np.unpackbits(hash_NB[i] ^ hash_NB[j]).sum())
        if bits == 0 or (bits <= NEAR_BITS and (first_of[i], first_of[j]) == (i, j)):
            wanted.append((bits, i, j))
    pair_P2, bits_P = best_near_pairs(hash_NB, most=1000)
    assert [(bits, *pair) for bits, pair in zip(bits_P.tolist(), pair_P2.tolist(), strict=True)] == sorted(wanted)
    few_P2, _ = best_near_pairs(hash_NB, most=5)
    assert few_P2.tolist() == pair_P2[:5].tolist()
    assert {bits for bits, *_ in wanted} > {0, 1}


def test_many_equal_pictures_are_asked_about_in_a_chain_and_not_all_with_all():
    hash_NB = np.concatenate([np.zeros((5_000, 16), np.uint8), np.full((1, 16), 255, np.uint8)])
    pair_P2, _ = best_near_pairs(hash_NB, most=10**6)
    assert len(pair_P2) == sum(5_000 - step for step in range(1, 9))
    assert {(row, row + 1) for row in range(4_999)} <= {tuple(pair) for pair in pair_P2.tolist()}


@pytest.fixture
def damaged(tmp_path):
    """near_duplicate_crops and two more that show nothing: one cut off, one without bytes."""
    table = near_duplicate_crops(tmp_path / "images").select(IMAGES.names)
    whole = table["image"][0].as_py()
    rows = [{"image_id": "cut", "image": whole[: len(whole) - 200]}, {"image_id": "none", "path": str(tmp_path / "gone.jpg")}]
    pq.write_table(table_of(IMAGES, rows), tmp_path / "images" / "part-00002.parquet")
    return tmp_path


def test_pictures_that_cannot_be_decoded_are_counted_and_the_others_asked_about(damaged):
    found = look_alikes(str(damaged / "images"), **HOW)
    assert dict(found.passed_over) == {"truncated": 1, "missing": 1}
    assert passed_over_in_words(found.passed_over) == "2 pictures could not be compared (missing 1, truncated 1)"
    assert len(found.pair_P2) == 5


def test_by_vectors_those_without_one_and_those_that_cannot_be_shown_are_counted(damaged):
    vectors = {"0a": [1.0, 0.0], "cut": [1.0, 0.1], "1a": [0.0, 1.0]}
    rows = [{"item_id": name, "image_id": name, "kind": "image", "status": "ok", "embedding": value} for name, value in vectors.items()]
    failed = {"item_id": "none", "image_id": "none", "kind": "image", "status": "failed", "reason": "missing: no such file"}
    pq.write_table(table_of(EMBEDDINGS, [*rows, failed]), damaged / "vectors.parquet")
    found = look_alikes(str(damaged / "images"), **{**HOW, "embeddings": str(damaged / "vectors.parquet")})
    assert [image.image_id for image in found.images] == ["0a", "cut"]
    assert dict(found.passed_over) == {"missing": 1, "no_vector": 8, "truncated": 1}


@pytest.mark.slow  # starts processes
def test_several_processes_hash_as_one_does(damaged, monkeypatch):
    alone = hashed_pictures(str(damaged / "images"), processes=0)
    monkeypatch.setattr(fetch, "_INLINE_S", 0.0)
    several = hashed_pictures(str(damaged / "images"), processes=2)
    table = pq.read_table(damaged / "images")
    pictures = dict(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    own = [picture_hash(decode_image(pictures[name])) for name in alone.ids.to_pylist()]
    for found in (alone, several):
        assert found.ids.to_pylist() == alone.ids.to_pylist()
        assert found.hash_NB.tobytes() == b"".join(own)
        assert dict(found.failed) == {"truncated": 1, "missing": 1}
