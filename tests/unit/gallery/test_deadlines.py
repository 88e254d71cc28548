"""Erasures are carried out before their deadline without anybody asking: by an open writer, by the next one."""

import time

import pytest
from gallery_to_kill import DIM, ids, remnants, table

from reid_ray.gallery import deadlines, gallery_writer
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.deadlines import READER_SHARE, WRITER_SHARE, is_due
from reid_ray.gallery.erasure import read_receipt
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.manifest import Erasure

TERM_S, FIRST_S = 20.0, 1.0  # the time that an erasure has, and when it is begun here, so that a busy machine is in time


@pytest.fixture(autouse=True)
def early(monkeypatch):
    monkeypatch.setattr(gallery_writer, "WRITER_SHARE", FIRST_S / TERM_S)
    monkeypatch.setattr(deadlines, "_LOOK_S", 0.1)


@pytest.fixture
def folder(tmp_path):
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e", config=GalleryConfig(segment_rows=3, erase_within_hours=TERM_S / 3600))
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(table(1, 2, 3), encoder="e")
        writer.snapshot("early")
        writer.add(table(4), encoder="e")
    return tmp_path / "gallery"


def erase(folder):
    with GalleryWriter(folder) as writer:
        writer.erase(ids(2, 4), request="one")
    assert remnants(folder, {2, 4}), "nothing shows that it was there before"


def carried_out_within(folder, seconds):
    """Whether there is a receipt, and no generation names the erased items any more."""
    reader, end = GalleryView(folder), time.monotonic() + seconds
    while time.monotonic() < end:
        reader.refresh()
        if not reader.erasures and not remnants(folder, {2, 4}):
            return read_receipt(folder, "one") is not None
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(("age", "share", "due"), [(0.89, WRITER_SHARE, False), (0.91, WRITER_SHARE, True), (0.91, READER_SHARE, False)])
def test_a_writer_begins_when_nine_tenths_of_the_time_are_over_and_a_reader_later(age, share, due):
    now = time.time()
    assert is_due(Erasure("one", (), asked=now - 1000 * age, deadline=now + 1000 * (1 - age)), share) is due


@pytest.mark.slow  # it waits
def test_an_open_writer_carries_an_erasure_out_before_its_deadline(folder):
    with GalleryWriter(folder) as writer:
        writer.erase(ids(2, 4), request="one")
        deadline = writer.view.erasures[0].deadline
        assert carried_out_within(folder, 10)
        assert time.time() < deadline
        assert set(writer.view.ids()) == set(ids(1, 3))


@pytest.mark.slow  # it waits
def test_whoever_opens_a_gallery_for_writing_carries_out_what_is_due(folder):
    erase(folder)
    time.sleep(FIRST_S)
    GalleryView(folder)
    assert remnants(folder, {2, 4}), "reading changes nothing"
    GalleryWriter(folder).close()
    assert remnants(folder, {2, 4}) == []
    assert read_receipt(folder, "one")["items"] == 2


@pytest.mark.slow  # it waits
def test_what_is_older_than_its_retention_is_erased_when_the_gallery_is_opened_for_writing(tmp_path):
    config = GalleryConfig(retention_days=1 / 86_400, erase_within_hours=0)
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e", config=config)
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.add(table(1), encoder="e")
    time.sleep(1.1)
    with GalleryWriter(tmp_path / "gallery") as writer:
        assert writer.view.ids() == []
        assert remnants(tmp_path / "gallery", {1}) == []
