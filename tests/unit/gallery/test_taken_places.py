"""A gallery that takes another's place has a later generation, so whoever has the other open sees that there is a newer one."""

import shutil

from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.generations import newest_generation


def test_a_reader_follows_from_one_gallery_to_the_one_that_took_its_place(tmp_path):
    assert newest_generation(tmp_path / "gallery") == 0
    create_gallery(tmp_path / "gallery", dim=3, encoder="tests")
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.compact()
    view = GalleryView(tmp_path / "gallery")
    create_gallery(tmp_path / "next", dim=3, encoder="tests", after=newest_generation(tmp_path / "gallery"))
    shutil.rmtree(tmp_path / "gallery")
    (tmp_path / "next").rename(tmp_path / "gallery")
    assert newest_generation(tmp_path / "gallery") == view.generation + 1
    assert not view.follow()
    view.refresh()
    assert view.generation == newest_generation(tmp_path / "gallery")
    (tmp_path / "gallery" / "CURRENT").write_text("nothing")
    assert newest_generation(tmp_path / "gallery") == 0
