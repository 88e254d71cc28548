"""The head of a gallery's answer, ranked anew."""

import numpy as np
import pyarrow as pa
import pytest

from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.retrieval.gallery_queries import reranked

DIM, PERSONS, PICTURES = 24, 12, 15


@pytest.fixture
def gallery(tmp_path):
    """(writer, query, its person): pictures of a person lie on a short line, so that those at its ends resemble others as much."""
    rng = np.random.default_rng(3)
    centre, line = rng.normal(size=(2, PERSONS, DIM))
    person = np.repeat(np.arange(PERSONS), PICTURES)
    along = np.tile(np.linspace(-1, 1, PICTURES), PERSONS)[:, None]
    vectors = centre[person] + along * line[person] + 0.25 * rng.normal(size=(len(person), DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e")
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(pa.table({"item_id": [f"item {n}" for n in range(len(person))], "embedding": array, "person_id": person}), encoder="e")
        yield writer, vectors, person


def right(hits, person):
    """How many of the first fourteen are of the person."""
    return sum(hit.item["person_id"] == person for hit in hits[: PICTURES - 1])


@pytest.mark.slow
def test_pictures_of_one_person_that_resemble_each_other_but_not_the_query_come_up(gallery):
    writer, vectors, person = gallery
    before, after = 0, 0
    for row in range(0, len(vectors), PICTURES):  # the first picture of each: one end of the line
        head = writer.view.search(vectors[row : row + 1], 80, without=[f"item {row}"])[0]
        again = reranked(writer.view, vectors[row], head, k1=10)
        assert sorted(hit.item_id for hit in again) == sorted(hit.item_id for hit in head)
        assert [hit.score for hit in again] == sorted((hit.score for hit in again), reverse=True)
        before, after = before + right(head, person[row]), after + right(again, person[row])
    assert after > 1.1 * before


def test_a_short_head_stays_as_it_is_and_what_is_gone_is_left_out(gallery):
    writer, vectors, _ = gallery
    head = writer.view.search(vectors[:1], 20)[0]
    assert reranked(writer.view, vectors[0], head) == head
    head = writer.view.search(vectors[:1], 60)[0]
    writer.delete([head[3].item_id])
    assert {hit.item_id for hit in reranked(writer.view, vectors[0], head)} == {hit.item_id for hit in head} - {head[3].item_id}
