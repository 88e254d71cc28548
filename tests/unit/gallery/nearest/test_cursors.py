"""Pages, one hit per value and feedback beside a gallery that is walked by brute force, while it changes between the pages."""

import numpy as np
import pyarrow as pa
import pytest
from refusals import refused

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery

DIM = 8


def unit(rng, count):
    vectors = rng.normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(ids, vectors, persons):
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)
    return pa.table(
        {"item_id": ids, "embedding": array, "person_id": pa.array(persons, pa.int64()), "caption": [f"person {each}" for each in persons]}
    )


@pytest.fixture
def gallery(tmp_path):
    """(writer, vectors): 300 items of 40 persons in segments and log; every third item is the same picture."""
    rng = np.random.default_rng(0)
    vectors = unit(rng, 300)
    vectors[::3] = vectors[0]
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e", config=GalleryConfig(segment_rows=100))
    with GalleryWriter(tmp_path / "gallery") as writer:
        for start in range(0, 300, 60):
            numbers = range(start, start + 60)
            writer.add(table([f"item {n}" for n in numbers], vectors[start : start + 60], [n % 40 for n in numbers]), encoder="e")
        yield writer, vectors


def walked(view, query, k, **options):
    """Ids of all pages, in order."""
    ids, cursor = [], None
    while True:
        page = view.page(query, k, cursor=cursor, **options)
        assert len(page.hits) <= k
        ids += [hit.item_id for hit in page.hits]
        cursor = page.cursor
        if cursor is None:
            return ids


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 7, 100, 300, 1_000])
def test_pages_put_together_are_one_long_search(gallery, k):
    writer, vectors = gallery
    query = vectors[0]  # a hundred items tie with it
    for options in ({}, {"where": {"person_id": [0, 3, 5]}}, {"threshold": 0.1}, {"one_per": "person_id"}, {"without": ["item 3"]}):
        if k > 1 or options:
            whole = [hit.item_id for hit in writer.view.search(query[None], 300, **options)[0]]
            assert walked(writer.view, query, k, **options) == whole


@pytest.mark.slow
def test_what_comes_and_goes_between_two_pages_moves_no_hit_from_one_to_the_other(gallery):
    writer, _ = gallery
    rng = np.random.default_rng(1)
    query = unit(rng, 1)[0]
    stayed = {f"item {n}" for n in range(300)}
    seen, cursor = [], None
    for number in range(100):
        page = writer.view.page(query, 9, cursor=cursor)
        seen += [hit.item_id for hit in page.hits]
        cursor = page.cursor
        if cursor is None:
            break
        last = page.hits[-1].item_id
        gone = [f"item {n}" for n in rng.choice(300, 4)]
        gone = [each for each in gone if each != last]
        writer.delete(gone)
        stayed -= set(gone)
        writer.add(table([f"new {number} {n}" for n in range(5)], unit(rng, 5), [1] * 5), encoder="e")
        if number % 5 == 0:
            writer.compact()
    assert len(seen) == len(set(seen))
    assert stayed <= set(seen)


def test_a_page_goes_on_after_a_hit_that_is_gone(gallery):
    writer, vectors = gallery
    whole = [hit.item_id for hit in writer.view.search(vectors[:1], 300)[0]]
    for shown in (5, 150):  # among those that tie, and beyond
        page = writer.view.page(vectors[0], shown)
        writer.delete([page.hits[-1].item_id])
        following = writer.view.page(vectors[0], 10, cursor=page.cursor)
        assert [hit.item_id for hit in following.hits] == whole[shown : shown + 10]
        whole.remove(page.hits[-1].item_id)


def test_a_cursor_of_another_search_or_none_at_all_is_refused(gallery):
    writer, vectors = gallery
    cursor = writer.view.page(vectors[0], 5).cursor
    for query, options in ((vectors[1], {}), (vectors[0], {"where": {"person_id": 1}})):
        with refused(ConfigError, "cursor"):
            writer.view.page(query, 5, cursor=cursor, **options)
    for wrong in ("", "x", "W10", cursor[:-4]):
        with refused(ConfigError, "cursor"):
            writer.view.page(vectors[0], 5, cursor=wrong)


@pytest.mark.parametrize("column", ["person_id", "caption"])
def test_one_hit_per_value_is_the_best_of_each_though_one_has_a_hundred_equal_pictures(gallery, column):
    writer, vectors = gallery
    crowd = np.repeat(vectors[:1], 500, axis=0)
    writer.add(table([f"twin {n}" for n in range(500)], crowd, [99] * 500), encoder="e")
    hits = writer.view.search(vectors[:1], 41, one_per=column)[0]
    best = {}
    score = np.concatenate([vectors, crowd]).astype(np.float64) @ vectors[0].astype(np.float64)
    for row, person in enumerate([n % 40 for n in range(300)] + [99] * 500):
        best[person] = max(best.get(person, -2), np.float32(score[row]))
    assert sorted((hit.item["person_id"], np.float32(hit.score)) for hit in hits) == sorted(best.items())
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_who_is_unlike_some_items_comes_later_and_the_query_is_rocchios(gallery):
    writer, vectors = gallery
    view = writer.view
    like, unlike = ["item 1", "item 2"], ["item 4", "item 5", "item 7"]
    wanted = vectors[[1, 2]].astype(np.float64).mean(axis=0) - 0.5 * vectors[[4, 5, 7]].astype(np.float64).mean(axis=0)
    moved = view.query_like(like, unlike)
    assert np.allclose(moved, wanted / np.linalg.norm(wanted), atol=1e-6)
    plain = view.query_like(like)
    assert (vectors[[4, 5, 7]] @ moved < vectors[[4, 5, 7]] @ plain).all()
    text = unit(np.random.default_rng(5), 1)[0]
    wanted = (text.astype(np.float64) + vectors[1]) / 2 - vectors[4]
    assert np.allclose(view.query_like(["item 1"], ["item 4"], query_D=text, unlike_weight=1), wanted / np.linalg.norm(wanted), atol=1e-6)
    with refused(DataError, "cancel"):
        view.query_like(["item 1"], ["item 1"], unlike_weight=1)
    with refused(DataError, "nobody"):
        view.query_like(["item 1"], ["nobody"])


def test_ids_and_the_count_are_of_what_lives_and_passes(gallery):
    writer, _ = gallery
    writer.delete(["item 0", "item 40", "item 299"])
    assert len(writer.view) == 297
    assert writer.view.ids({"person_id": 0}) == [f"item {n}" for n in range(80, 300, 40)]
    assert writer.view.ids() == [f"item {n}" for n in range(300) if n not in (0, 40, 299)]
    writer.compact()
    assert len(writer.view) == 297
