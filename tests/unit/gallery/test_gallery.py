"""A gallery finds what a dictionary and a sorted list find: random writes, filters, generations."""

import pytest
from gallery_pair import Pair

from reid_ray.gallery.gallery_view import GalleryView


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_gallery_finds_what_brute_force_finds_after_any_writes_and_so_does_a_reader_beside_it(tmp_path, seed):
    pair = Pair(tmp_path / "gallery", seed, segment_rows=25, merge_rows=60)
    reader = GalleryView(tmp_path / "gallery")
    for _ in range(60):
        pair.step()
        pair.check(pair.writer.view)
        reader.refresh()
        pair.check(reader)
    pair.writer.close()
    pair.check(GalleryView(tmp_path / "gallery"))


def test_compacting_merges_what_the_log_holds_with_the_segments_before_it(tmp_path):
    pair = Pair(tmp_path / "gallery", 0, segment_rows=1000, merge_rows=1000)
    pair.add()
    pair.writer.seal()
    pair.add()
    pair.writer.compact()
    segment, log = pair.writer.view.parts()
    assert (len(segment.source), len(log.source)) == (len(pair.model), 0)
    pair.check(pair.writer.view)
    pair.writer.close()
