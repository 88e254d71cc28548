"""What weights have seen of a gallery: images by their content, identities by their names, roles told apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reid_ray.records import IMAGES, table_of
from reid_ray.retrieval.evaluate.exposure import exposure, exposure_of, exposure_sentence, shared_with
from reid_ray.train.feed.seen import write_seen
from reid_ray.train.feed.splits import Roles


def image(name: str, person: int | None, *, split: str = "test", dataset: str = "Market-1501") -> dict:
    content = hashlib.sha256(name.encode()).hexdigest()
    return {"image_id": name, "image": b"", "image_sha256": content, "split": split, "dataset": dataset, "person_id": person}


@pytest.fixture
def asked(tmp_path):
    """What an encoder that trained on the images of train and was chosen on those of val shares with a gallery."""

    def ask(gallery, *, train=(), val=(), used=True, tables=True):
        (tmp_path / "model").mkdir(exist_ok=True)
        seen = table_of(IMAGES, [*train, *val])
        train_N = np.arange(len(seen)) < len(train)
        write_seen(tmp_path / "model" / "seen.parquet", seen, Roles(train_N, ~train_N, np.arange(len(seen))), np.full(len(seen), used))
        table = table_of(IMAGES, list(gallery))
        pq.write_table(table, tmp_path / "gallery.parquet")
        split = table.filter(pa.compute.equal(table["split"], "test"))
        return exposure(str(tmp_path / "model"), split, str(tmp_path / "gallery.parquet") if tables else None, split="test")

    return ask


def test_a_gallery_of_unseen_people_is_said_to_be_one(asked):
    found = asked([image("g1", 1), image("g2", 2)], train=[image("t", 7)], val=[image("v", 8)])
    nothing = {"images": 0, "identities": 0}
    assert found == {"recorded": True, "images": 2, "identities": 2, "train": nothing, "val": nothing}
    assert (shared_with("train", found), shared_with("val", found)) == (False, False)
    assert "WARNING" not in exposure_sentence(found)


def test_the_same_picture_under_another_name_split_and_data_set_is_found(asked):
    copy = {**image("t", 1, split="train", dataset="mine"), "image_id": "renamed.jpg"}
    found = asked([image("t", 9), image("g", 9)], train=[copy])
    assert found["train"] == {"images": 1, "identities": 0}
    assert "WARNING" in exposure_sentence(found)


def test_another_picture_of_a_trained_identity_is_found(asked):
    found = asked([image("g1", 1), image("g2", 2)], train=[image("t", 2)], val=[image("v", 1)])
    assert found["train"] == {"images": 0, "identities": 1}
    assert found["val"] == {"images": 0, "identities": 1}


def test_equal_numbers_of_two_data_sets_or_of_synthetic_people_are_not_one_identity(asked):
    found = asked(
        [image("g", 1), image("s", 2, dataset="synthetic")], train=[image("t", 1, dataset="b"), image("u", 2, dataset="synthetic")]
    )
    assert shared_with("train", found) is False


def test_images_that_were_not_used_do_not_count_and_images_of_other_splits_are_not_asked_for(asked):
    assert shared_with("train", asked([image("g", 1)], train=[image("g", 1)], used=False)) is False
    assert shared_with("train", asked([image("g", 1), image("t", 2, split="train")], train=[image("t", 2)])) is False


def test_embeddings_alone_are_compared_by_identity(asked):
    found = asked([image("t", 3)], train=[image("t", 3)], tables=False)
    assert found["train"] == {"images": 0, "identities": 1}


def test_weights_that_do_not_tell_are_not_called_clean(tmp_path):
    (tmp_path / "model").mkdir()
    for encoder in (None, str(tmp_path / "model")):
        found = exposure(encoder, table_of(IMAGES, [image("g", 1)]), None, split=None)
        assert shared_with("train", found) is None
        assert "unknown" in exposure_sentence(found)
    assert exposure_of({"r1": 1.0}) == {"recorded": False}
