"""Segments that are sealed elsewhere and adopted: the gallery is the one that `add` makes of the same rows, and a kill costs nothing."""

import time
from collections import Counter
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from kill_points import outcomes
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.gallery import gallery_writer
from reid_ray.gallery.bulk import adoption
from reid_ray.gallery.bulk.erased_since import ErasedSince, ErasuresBefore
from reid_ray.gallery.bulk.sealed_piece import PIECES, read_piece, seal_piece
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.items import checked_items
from reid_ray.gallery.shards.share import NOTHING
from reid_ray.gallery.verification import faults_of

DIM = 16


def unit(rng, count):
    vectors = rng.normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(ids, vectors, **columns):
    array = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)
    pictures = pa.array([b"picture of " + each.encode() for each in ids], pa.binary())
    return pa.table({"item_id": ids, "embedding": array, "thumbnail": pictures, **columns})


def seal(folder, name, *tables, dim=DIM, dtype="float32"):
    batches = [checked_items(each, origin=name, dim=dim) for each in tables]
    schema = batches[0].rows.schema
    counts = Counter(read=sum(map(len, batches)))
    return seal_piece(
        folder, name, batches, sum(map(len, batches)), dim=dim, config=GalleryConfig(dtype=dtype), schema=schema, counts=counts
    )


def everything(view, queries):
    return [[(hit.item_id, hit.score, {**hit.item, "added_s": None}) for hit in hits] for hits in view.search(queries, 500)]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "at_once"), [(0, 1 << 20), (1, 1 << 20), (2, 7)])
def test_a_gallery_that_adopts_pieces_is_the_one_that_adds_their_rows(seed, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(adoption, "_IDS_AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(7):
        ids = [f"item {number}" for number in rng.choice(60, rng.integers(1, 25), replace=False)]
        tables.append(table(ids, unit(rng, len(ids)), camera_id=rng.integers(4, size=len(ids)).tolist()))
    folders = [tmp_path / name for name in ("added", "adopted")]
    writers = []
    for folder in folders:
        create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(segment_rows=10))
        writer = GalleryWriter(folder)
        writers.append(writer)
        for each in tables[:3]:
            writer.add(each, encoder="e")
        writer.delete(["item 1", "item 2"])
        writer.erase(["item 3"])
    one, two = writers
    before = GalleryView(folders[1])
    known, living_before = everything(before, unit(rng, 1)), len(before)
    for each in tables[3:]:
        one.add(each, encoder="e")
    pieces = folders[1] / PIECES
    sealed = [seal(pieces, f"piece{at}", each) for at, each in enumerate(tables[3:])]
    generation = two.view.generation
    taken = two.adopt(pieces, sealed, encoder="e")
    queries = unit(rng, 4)
    assert everything(two.view, queries) == everything(one.view, queries)
    assert len(two.view) == len(one.view) == living_before - taken.replaced_before + taken.living
    assert sum(each.num_rows for each in tables[3:]) == taken.living + taken.replaced
    assert two.view.generation <= generation + 2
    assert not pieces.exists()
    assert len(known[0]) == living_before  # who had it open saw the older generation
    before.refresh()
    assert everything(before, queries) == everything(one.view, queries)
    assert all(before.thumbnail(hit[0]) == b"picture of " + hit[0].encode() for hit in everything(before, queries)[0])
    for writer in writers:
        writer.add(tables[0], encoder="e")  # the log goes on after them
        writer.carry_out_erasures()
        writer.compact()
    assert everything(two.view, queries) == everything(one.view, queries)
    assert faults_of(folders[1]) == []


def test_a_piece_is_found_again_if_it_is_whole_and_only_then(tmp_path):
    piece = seal(tmp_path, "one", table(["a", "b"], unit(np.random.default_rng(0), 2)))
    assert read_piece(tmp_path, "one") == piece
    assert read_piece(tmp_path, "another") is None
    vectors = tmp_path / piece.facts.name / "vectors.npy"
    vectors.chmod(0o644)
    vectors.write_bytes(vectors.read_bytes()[:-4])
    assert read_piece(tmp_path, "one") is None
    again = seal(tmp_path, "one", table(["a", "b"], unit(np.random.default_rng(0), 2)))
    assert read_piece(tmp_path, "one") == again


def test_a_column_of_another_type_than_the_gallerys_is_refused_and_nothing_is_taken(tmp_path):
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e")
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(table(["a"], unit(np.random.default_rng(0), 1), camera_id=[1]), encoder="e")
        pieces = tmp_path / "gallery" / PIECES
        sealed = [seal(pieces, "text", table(["b"], unit(np.random.default_rng(0), 1), camera_id=["first"]))]
        with refused(DataError, "camera_id"):
            writer.adopt(pieces, sealed, encoder="e")
        assert writer.view.ids() == ["a"]
        assert read_piece(pieces, "text") == sealed[0]


def test_an_erasure_that_is_carried_out_leaves_no_piece_of_a_build_that_was_killed(tmp_path):
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e")
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(table(["a", "b"], unit(np.random.default_rng(0), 2)), encoder="e")
        seal(tmp_path / "gallery" / PIECES, "left", table(["a"], unit(np.random.default_rng(0), 1)))
        writer.erase(["a"])
        writer.carry_out_erasures()
    assert not [path for path in (tmp_path / "gallery").rglob("*") if path.is_file() and b"picture of a" in path.read_bytes()]


@pytest.mark.parametrize("behind_s", [3600, -3600])
@pytest.mark.parametrize("is_carried_out", [False, True])
def test_who_is_erased_while_pieces_are_made_stays_dead_whatever_the_erasers_clock_says(behind_s, is_carried_out, tmp_path, monkeypatch):
    folder, rng = tmp_path / "gallery", np.random.default_rng(0)
    create_gallery(folder, dim=DIM, encoder="e")
    with GalleryWriter(folder) as writer:
        writer.add(table(["before", "since", "kept"], unit(rng, 3)), encoder="e")
        writer.erase(["before"], request="before")
    with closing(GalleryView(folder, share=NOTHING)) as about:
        erased = ErasedSince(str(folder), ErasuresBefore.of(about))
    sealed = [seal(tmp_path / PIECES, "piece", table(["before", "since", "new"], unit(rng, 3)))]
    with monkeypatch.context() as patch, GalleryWriter(folder) as eraser:  # on a machine with another clock
        patch.setattr(gallery_writer, "time", SimpleNamespace(time=lambda: time.time() - behind_s, monotonic=time.monotonic))
        eraser.erase(["since"], request="since")
        if is_carried_out:
            eraser.carry_out_erasures()
    with GalleryWriter(folder) as writer:
        taken = writer.adopt(tmp_path / PIECES, sealed, encoder="e", erased=erased)
        assert (taken.erased, {*writer.view.ids()}) == (("since",), {"before", "kept", "new"})


@pytest.mark.slow
def test_a_kill_before_any_call_of_an_adoption_leaves_the_older_gallery_or_the_newer_and_it_can_be_run_again(tmp_path):
    found = outcomes("adoption_to_kill", "adopt", tmp_path, every=9)
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    assert len(found) > 8
    assert {tuple(each["first"]) for each in found} == {("a", "b"), ("b", "c", "a")}
    assert all(each["second"] == ["b", "c", "a"] and each["faults"] == [] and not each["pieces"] for each in found)
