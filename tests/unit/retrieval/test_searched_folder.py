"""What a service searches: it answers as brute force does, shows what was written to it, and hides what was erased."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from encoders_pair import seal_vectors
from lost_shares import Losable
from refusals import refused

from reid_ray.errors import ConfigError, DataError, ResourceError
from reid_ray.gallery.bulk.sealed_piece import PIECES
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_reader import OtherEncoderError
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.shards.joined_view import JoinedView
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.shards.share import Share
from reid_ray.retrieval.generation_turns import GenerationTurns
from reid_ray.retrieval.query import Query
from reid_ray.retrieval.searched_folder import SearchedGallery, encoder_of, refuse_unfit

DIM = 8
COUNT = 30
VECTORS = np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
ITEMS = [
    {"item_id": f"a/{n}.jpg", "image_id": f"a/{n}.jpg", "kind": "image", "status": "ok", "person_id": n // 3, "camera_id": n % 4}
    for n in range(COUNT)
]


def rows(first, stop):
    columns = ("item_id", "image_id", "person_id", "camera_id")
    table = pa.table({name: [item[name] for item in ITEMS[first:stop]] for name in columns})
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[first:stop].reshape(-1)), DIM)
    pictures = pa.array([b"jpeg %d" % n for n in range(first, stop)], pa.binary())
    return table.append_column("embedding", vectors).append_column("thumbnail", pictures)


@pytest.fixture
def gallery(tmp_path):
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e")
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(rows(0, COUNT), encoder="e")
    return tmp_path / "gallery"


def asked(searched, query_QD, k, **options):
    return [page.hits for page in searched.pages(query_QD, Query((), k, **options))]


def test_a_gallery_answers_with_the_best_items_by_generation_and_id(gallery):
    searched = SearchedGallery(gallery)
    for k, cameras in ((1, None), (10, None), (10, (1, 2)), (50, (3,)), (5, (77,)), (5, ())):
        where = {} if cameras is None else {"camera_id": list(cameras)}
        for query, hits in zip(VECTORS[:6], asked(searched, VECTORS[:6], k, where=where), strict=True):
            passing = [n for n in range(COUNT) if cameras is None or n % 4 in cameras]
            best = sorted(passing, key=lambda n, query=query: (-np.float32(np.dot(VECTORS[n].astype(np.float64), query)), n))[:k]
            shown = [(hit.item_id, hit.item["person_id"], hit.item["camera_id"]) for hit in hits]
            assert shown == [(f"a/{n}.jpg", n // 3, n % 4) for n in best]
            np.testing.assert_allclose([hit.score for hit in hits], [VECTORS[n] @ query for n in best], atol=1e-6)
            assert {hit.generation for hit in hits} <= {GalleryView(gallery).generation}
    assert {"items": COUNT, "dim": DIM, "encoder_fingerprint": "e"}.items() <= searched.describe().items()
    assert searched.facets(["camera_id"], None).columns == {"camera_id": {n: len(range(n, COUNT, 4)) for n in range(4)}}


@pytest.mark.slow
def test_shares_of_a_gallery_answer_a_service_as_the_whole_of_it_and_one_that_is_lost_is_named(tmp_path):
    shards = divided_gallery(tmp_path)
    whole, divided = SearchedGallery(tmp_path), SearchedGallery(tmp_path, ShardedView(shards, lost="say"))
    for query in (
        Query((), 1),
        Query((), 10, where={"camera_id": [1, 2]}),
        Query((), 50),
        Query((), 30, rerank=40),
        Query((), 4, one_per="person_id"),
    ):
        assert divided.pages(VECTORS[:6], query) == whole.pages(VECTORS[:6], query)
    assert (divided.describe(), len(divided)) == (whole.describe(), len(whole))
    assert [divided.thumbnail(name) for name in ("a/3.jpg", "nobody")] == [b"jpeg 3", None]
    assert divided.item("a/3.jpg") == whole.item("a/3.jpg")
    for searched in (divided, whole):
        assert listed(searched, 4, where=None) == [f"a/{n}.jpg" for n in reversed(range(COUNT))]
        assert listed(searched, 3, where={"camera_id": 2}) == [f"a/{n}.jpg" for n in reversed(range(COUNT)) if n % 4 == 2]
    for ids in (["a/0.jpg", "nobody", "a/7.jpg"], ["nobody"]):
        for one, other in zip(divided.vectors_there(ids), whole.vectors_there(ids), strict=True):
            np.testing.assert_array_equal(one, other)
    shards[2].lost = True
    for query in (Query((), COUNT), Query((), COUNT, rerank=COUNT), Query((), 4)):
        page = divided.pages(VECTORS[:1], query)[0]
        assert (0 < len(page.hits) < COUNT, page.missing) == (True, (2,))
    assert divided.pages(VECTORS[:1], Query((), 4, cursor=page.cursor))[0].missing == (2,)
    partial = (divided.facets(["camera_id"], None), divided.newest(COUNT, where=None, after=None))
    assert [each.missing for each in partial] == [(2,), (2,)]
    assert divided.describe()["missing_shares"] == [2]
    assert sum(partial[0].columns["camera_id"].values()) == len(partial[1].items) == divided.describe()["items"] < COUNT


def test_an_item_of_a_share_that_is_lost_is_not_said_to_be_gone(tmp_path):
    shards, ids = divided_gallery(tmp_path), [f"a/{n}.jpg" for n in range(COUNT)]
    divided = SearchedGallery(tmp_path, ShardedView(shards, lost="say"))
    shards[2].lost = True
    there = {hit.item_id for hit in asked(divided, VECTORS[:1], COUNT)[0]}
    assert 0 < len(there) < COUNT
    for name in ids:
        asking = {
            "an item": lambda name=name: divided.item(name).item_id == name,
            "a picture": lambda name=name: divided.thumbnail(name) == f"jpeg {name[2:-4]}".encode(),
            "a vector": lambda name=name: divided.vectors_there([name])[1].all(),
            "those after it": lambda name=name: divided.newest(1, where=None, after=name).is_known,
        }
        for ask in asking.values():
            if name in there:
                assert ask()
            else:
                with refused(ResourceError, "share 2 of the gallery is lost"):
                    ask()


def test_what_a_thread_lacked_is_not_said_to_another(tmp_path):
    shards = divided_gallery(tmp_path)
    joined = JoinedView(str(tmp_path), ShardedView(shards, lost="say"))
    with ThreadPoolExecutor(1) as other:
        joined.search(VECTORS[:1], 3)
        shards[2].lost = True
        other.submit(joined.search, VECTORS[:1], 3).result()
        assert (joined.missing, other.submit(lambda: joined.missing).result()) == ((), (2,))


def divided_gallery(folder):
    """A gallery whose three shares can be lost."""
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=5, merge_rows=5))
    with GalleryWriter(folder) as writer:
        for first in range(0, COUNT, 5):
            writer.add(rows(first, first + 5), encoder="e")
    return [Losable(folder, Share(number, 3)) for number in range(3)]


def listed(searched, k, *, where):
    """Ids of the whole gallery, newest first, asked page by page."""
    found, after = [], None
    while True:
        items, known, _ = searched.newest(k, where=where, after=after)
        assert known == (after is not None)
        if not items:
            return found
        found += [item.item_id for item in items]
        after = found[-1]


def test_pages_of_the_newest_go_on_after_an_item_that_is_gone_and_leave_out_nothing(gallery):
    searched = SearchedGallery(gallery)
    first = [item.item_id for item in searched.newest(5, where=None, after=None).items]
    with GalleryWriter(gallery) as writer:
        writer.delete([first[-1]])
        writer.add(rows(0, 1).set_column(0, "item_id", [["newer"]]), encoder="e")
        searched.look()
        then, known, _ = searched.newest(COUNT, where=None, after=first[-1])
        assert (len(then), known, {"newer", *first} & {item.item_id for item in then}) == (COUNT - 5, True, set())


def test_a_service_over_a_gallery_sees_what_is_written_and_loses_what_is_erased(gallery, monkeypatch):
    monkeypatch.setattr("reid_ray.retrieval.searched_folder._LOOK_EVERY_S", 0.0)
    searched = SearchedGallery(gallery)
    assert asked(searched, VECTORS[:1], 1)[0][0].item_id == "a/0.jpg"
    assert searched.thumbnail("a/0.jpg") == b"jpeg 0"
    with GalleryWriter(gallery) as writer:
        writer.erase(["a/0.jpg"])
        moved = rows(1, 2).set_column(0, "item_id", [["new"]])
        writer.add(moved, encoder="e")
        assert "a/0.jpg" not in {hit.item_id for hit in asked(searched, VECTORS[:1], COUNT)[0]}
        assert searched.thumbnail("a/0.jpg") is None
        assert searched.thumbnail("new") == b"jpeg 1"
        writer.carry_out_erasures()
        assert len(asked(searched, VECTORS[:1], COUNT + 5)[0]) == len(searched) == COUNT


def test_what_does_not_fit_is_refused_before_a_replica_starts(gallery):
    refuse_unfit(str(gallery), dim=DIM, fingerprint="e", include_synthetic=False)
    with refused(DataError, "encoder"):
        refuse_unfit(str(gallery), dim=DIM, fingerprint="f")
    with refused(ConfigError, "encoder"):
        encoder_of(str(gallery), None)
    with GalleryWriter(gallery) as writer:
        writer.add(rows(0, 1).append_column("synthetic", [[True]]), encoder="e")
    with refused(DataError, "include_synthetic"):
        refuse_unfit(str(gallery), dim=DIM, fingerprint="e", include_synthetic=False)


@pytest.mark.parametrize("replica", [False, True], ids=["alone", "with turns"])
def test_a_service_whose_gallery_goes_over_to_another_encoder_refuses_until_it_has_that_one(gallery, monkeypatch, replica):
    monkeypatch.setattr("reid_ray.retrieval.searched_folder._LOOK_EVERY_S", 0.0)
    turns = GenerationTurns() if replica else None
    searched = SearchedGallery(gallery, encoder="e", turns=turns, replica="a")
    assert len(asked(searched, VECTORS[:1], 5)[0]) == 5
    with GalleryWriter(gallery) as writer:
        sealed = [seal_vectors(gallery / PIECES, "new", writer.view.ids(), VECTORS[::-1])]
        writer.reencode(gallery / PIECES, sealed, encoder="another", dim=DIM)  # of the same dimension: only the name tells
    if replica:
        end = time.monotonic() + 30
        while searched._flips._refused is None and time.monotonic() < end:
            time.sleep(0.02)
    for _ in range(2):
        with refused(OtherEncoderError, "encoder another", "encoded by e"):
            asked(searched, VECTORS[:1], 5)
    again = SearchedGallery(gallery, encoder="another")
    assert [hits[0].item_id for hits in asked(again, VECTORS[:3], 1)] == [f"a/{COUNT - 1 - n}.jpg" for n in range(3)]
    if replica:
        searched._flips.close()


def test_an_encoder_that_index_noted_is_taken_only_while_the_gallery_is_of_it(tmp_path, gallery, monkeypatch):
    facts = {"encoder_path": str(tmp_path), "encoder_fingerprint": "e"}
    (gallery / "manifest.json").touch()
    monkeypatch.setattr("reid_ray.retrieval.searched_folder.read_manifest", lambda _: {"facts": facts})
    assert encoder_of(str(gallery), None) == str(tmp_path)
    with GalleryWriter(gallery) as writer:
        sealed = [seal_vectors(gallery / PIECES, "new", writer.view.ids(), VECTORS)]
        writer.reencode(gallery / PIECES, sealed, encoder="another", dim=DIM)
    with refused(ConfigError, "another", "give its folder"):
        encoder_of(str(gallery), None)
