"""Answers of the search engine by an encoder that reads the answer off the question: each query gets its own, whatever it came with."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image
from small_galleries import make_gallery

from reid_ray.data.images import encode_jpeg
from reid_ray.retrieval.search import Query, SearchEngine
from reid_ray.retrieval.searched_folder import SearchedGallery

ITEMS, CAMERAS = 12, 3
VECTORS = np.eye(ITEMS, 16, dtype=np.float32)


class Reading:
    """A text names the row that it is nearest to, and whether it is NaN; a picture's red does."""

    dim, context, reads_texts, fingerprint = 16, 5, True, "e"

    def encode_texts(self, texts):
        return np.stack([np.full(16, np.nan, np.float32) if "nan" in text else VECTORS[int(text.split()[0])] for text in texts])

    def encode_and_measure(self, texts):
        return self.encode_texts(texts), np.array([len(text.split()) for text in texts])

    def encode_images(self, pictures):
        return np.stack([VECTORS[round(np.asarray(picture)[0, 0, 0] / 20)] for picture in pictures])


@pytest.fixture
def engine(tmp_path) -> SearchEngine:
    rows = [{"item_id": f"{n}", "image_id": f"{n}.jpg", "person_id": n, "camera_id": n % CAMERAS} for n in range(ITEMS)]
    return SearchEngine(Reading(), SearchedGallery(make_gallery(tmp_path / "gallery", VECTORS, rows)))


def picture(row: int) -> bytes:
    return encode_jpeg(Image.new("RGB", (8, 8), (20 * row, 0, 0)), quality=100)


QUERIES = [
    Query(k=1, text="3"),
    Query(k=4, text="3 with more words than are read"),
    Query(k=2, image=picture(7)),
    Query(k=2, text="7", camera_ids=(0, 2)),
    Query(k=2, text="7", camera_ids=(1,)),
    Query(k=5, text="0 nan"),
    Query(k=2, image=b"no picture"),
    Query(k=1, text="5"),  # searched together with the first
    Query(k=1, text="9"),
]


def test_each_query_gets_its_own_hits_cameras_and_number_whatever_it_came_with(engine):
    answers = engine.answer(QUERIES)
    assert [len(answer.hits) for answer in answers] == [1, 4, 2, 2, 2, 0, 0, 1, 1]
    assert [int(answer.hits[0].thumbnail) if answer.hits else None for answer in answers] == [3, 3, 7, 0, 7, None, None, 5, 9]
    assert [answer.truncated for answer in answers] == [at == 1 for at in range(len(QUERIES))]
    assert [(answer.refused or "").partition(":")[0] for answer in answers] == ["", "", "", "", "", "not_finite", "not_an_image", "", ""]
    for query, answer in zip(QUERIES, answers, strict=True):
        assert all(query.camera_ids is None or hit.camera_id in query.camera_ids for hit in answer.hits)
        assert [hit.rank for hit in answer.hits] == list(range(1, len(answer.hits) + 1))
        assert all(
            (hit.image_id, hit.person_id, hit.camera_id) == (f"{hit.thumbnail}.jpg", int(hit.thumbnail), int(hit.thumbnail) % CAMERAS)
            for hit in answer.hits
        )


def test_an_answer_does_not_depend_on_what_it_was_batched_with(engine):
    alone = [engine.answer([query])[0] for query in QUERIES]
    for order in itertools.islice(itertools.permutations(range(len(QUERIES))), 0, None, 49_999):
        together = engine.answer([QUERIES[at] for at in order])
        assert [answer.hits for answer in together] == [alone[at].hits for at in order]
