"""A gallery that goes over to another encoder: one generation with every item's new vector, snapshots of the older one, nobody back."""

import threading

import numpy as np
import pytest
from encoders_pair import EncodersPair, seal_vectors
from gallery_pair import DIM, table, unit
from kill_points import outcomes
from refusals import refused

from reid_ray.errors import DataError
from reid_ray.gallery.bulk.sealed_piece import PIECES, PiecesGoneError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_reader import OtherEncoderError
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.renewal import reencoding
from reid_ray.gallery.verification import faults_of

IDS = [f"item {number}" for number in range(20)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_over_encoders_snapshots_and_erasures_a_search_finds_what_brute_force_finds(tmp_path, seed):
    pair = EncodersPair(tmp_path / "gallery", seed, segment_rows=25, merge_rows=60)
    reader = GalleryView(tmp_path / "gallery")
    for _ in range(80):
        pair.step()
        assert pair.writer.view.manifest.encoder == pair.encoder
        pair.check(pair.writer.view)
        reader.refresh()
        assert reader.manifest.encoder == pair.encoder
        pair.check(reader)
    assert pair.changes > 3
    pair.writer.close()
    assert faults_of(tmp_path / "gallery") == []


@pytest.mark.slow
@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.soak("gallery_kills"))])
def test_a_kill_before_any_call_leaves_the_older_encoder_or_the_newer_whole_and_it_can_be_run_again(tmp_path, every):
    found = outcomes("reencoding_to_kill", "reencode", tmp_path, every=every)
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    assert {each["encoder"] for each in found} == {"e", "new"}
    for each in found:
        assert each["wrong"] == []
        assert each["last"] == "new"
        assert each["again"] == ("e" if each["encoder"] == "e" else "refused") or each["encoder"] == "new"
        assert each["found"] == [[102, 103, 104, 106, 108]] * 2
        assert each["restored"] == ["e", [102, 103, 104, 106, 107]]


@pytest.fixture
def writer(tmp_path):
    """A gallery of twenty items in two segments and the log."""
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e", config=GalleryConfig(segment_rows=8))
    with GalleryWriter(tmp_path / "gallery") as writer:
        for start in range(0, 20, 4):
            writer.add(table(IDS[start : start + 4], unit(np.random.default_rng(start), 4)), encoder="e")
        yield writer


def vectors(writer, ids=IDS, dim=6):
    """One sealed piece with a vector of each."""
    return [seal_vectors(writer.folder / PIECES, "new", ids, unit(np.random.default_rng(9), len(ids), dim))]


def reencode(writer, sealed, **options):
    return writer.reencode(writer.folder / PIECES, sealed, encoder="new", dim=6, **options)


def state(writer):
    manifest = writer.view.manifest
    return manifest.encoder, manifest.dim, sorted(writer.view.ids()), {path.name for path in (writer.folder / "segments").iterdir()}


def test_an_item_without_a_new_vector_is_named_and_nothing_changes_unless_it_is_to_be_dropped(writer):
    writer.seal()
    before = state(writer)
    sealed = vectors(writer, IDS[:15])
    with refused(DataError, "5 items", "'item 15'", "--drop-missing"):
        reencode(writer, sealed)
    assert state(writer) == before
    done = reencode(writer, sealed, drop_missing=True)
    assert (done.living, done.dropped, done.unused) == (15, 5, 0)
    assert state(writer)[:3] == ("new", 6, sorted(IDS[:15]))
    assert not (writer.folder / PIECES).exists()


def test_what_is_deleted_or_erased_meanwhile_stays_so_and_what_is_added_meanwhile_has_it_refused(writer, monkeypatch):
    steps = []

    def meanwhile(*words, **named):
        for step in steps:
            thread = threading.Thread(target=step)
            thread.start()
            thread.join(30)
            assert not thread.is_alive()  # writes go on
        steps.clear()
        return sealing(*words, **named)

    sealing = reencoding.new_segment
    monkeypatch.setattr(reencoding, "new_segment", meanwhile)
    steps.append(lambda: writer.add(table(["new one"], unit(np.random.default_rng(1), 1)), encoder="e"))
    with refused(DataError, "1 item of the encoder before", "run again"):
        reencode(writer, vectors(writer))
    assert state(writer)[:2] == ("e", DIM)
    assert set(writer.view.ids()) == {*IDS, "new one"}
    writer.delete(["new one"])
    steps.append(lambda: (writer.delete(["item 3"]), writer.erase(["item 4"], request="one")))
    reencode(writer, vectors(writer))
    assert set(writer.view.ids()) == {*IDS} - {"item 3", "item 4"}
    writer.carry_out_erasures()
    data = [path.read_bytes() for path in writer.folder.rglob("*") if path.is_file()]
    assert not any(b"item 4" in each or b"picture of item 4" in each for each in data)
    assert faults_of(writer.folder) == []


def test_vectors_of_the_older_encoder_are_refused_afterwards_and_those_of_the_newer_are_taken(writer):
    reencode(writer, vectors(writer))
    with refused(DataError, "encoder e", "new"):
        writer.add(table(["x"], unit(np.random.default_rng(0), 1)), encoder="e")
    with refused(DataError, "encoder e", "new"):
        writer.adopt(writer.folder / PIECES, [], encoder="e")
    writer.add(table(["x"], unit(np.random.default_rng(0), 1, 6)), encoder="new")
    assert "x" in writer.view.ids()


@pytest.mark.slow
def test_who_asks_with_the_older_encoder_is_told_and_given_no_score_of_the_newer(writer):
    old, free = GalleryView(writer.folder, encoder="e"), GalleryView(writer.folder)
    query = unit(np.random.default_rng(2), 1)
    hits = old.search(query, 3)
    reencode(writer, vectors(writer))
    with refused(OtherEncoderError, "encoder new", "encoded by e"):
        old.refresh()
    assert old.search(query, 3) == hits  # still of the older generation
    with refused(OtherEncoderError, "encoder new"):
        GalleryView(writer.folder, encoder="e")
    free.refresh()
    assert free.manifest.encoder == "new"
    assert GalleryView(writer.folder, encoder="new").search(unit(np.random.default_rng(2), 1, 6), 3)


def test_a_snapshot_is_of_its_own_encoder_and_going_back_to_it_goes_back_to_that(writer):
    writer.snapshot("before")
    query = unit(np.random.default_rng(2), 1)
    hits = [(hit.item_id, hit.score) for hit in writer.view.search(query, 20)[0]]
    reencode(writer, vectors(writer))
    writer.add(table(["since"], unit(np.random.default_rng(0), 1, 6)), encoder="new")
    writer.erase(["item 7"])
    writer.carry_out_erasures()  # in a segment of either dimension
    writer.restore("before")
    assert (writer.view.manifest.encoder, writer.view.manifest.dim) == ("e", DIM)
    assert [(hit.item_id, hit.score) for hit in writer.view.search(query, 20)[0]] == [hit for hit in hits if hit[0] != "item 7"]
    assert faults_of(writer.folder) == []


def test_pieces_that_are_gone_are_named_as_such(writer):
    sealed = vectors(writer)
    writer.erase(["item 1"])
    writer.carry_out_erasures()  # takes them along
    with refused(PiecesGoneError, "run again"):
        reencode(writer, sealed)
    assert state(writer)[:2] == ("e", DIM)
