"""Where ids lie: each at its place among sorted hashes, two of one hash told apart."""

import numpy as np
import pytest
from gallery_pair import DIM, table, unit

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.sealed import id_lookup, postings
from reid_ray.gallery.sealed.id_lookup import rows_of, sorted_lookup


@pytest.mark.parametrize("bits", [64, 3])
def test_each_id_is_found_at_its_row_and_no_other_is(bits, monkeypatch):
    true = id_lookup.id_hashes
    monkeypatch.setattr(id_lookup, "id_hashes", lambda ids: true(ids) >> np.uint64(64 - bits))
    ids = [f"item {n}" for n in np.random.default_rng(0).permutation(300)]
    asked = [*ids[::7], "nobody", "", *ids[:3]]
    found = rows_of(sorted_lookup(ids), asked, id_lookup.id_hashes(asked), ids.__getitem__)
    assert found.tolist() == [ids.index(each) if each in ids else -1 for each in asked]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000])
def test_the_first_place_of_any_hash_is_that_of_a_sorted_array(count):
    rng = np.random.default_rng(count)
    few = np.array([*rng.integers(0, 20, 40), 0, 2**64 - 1], np.uint64)  # many equal, and both ends
    for hashes in (np.sort(rng.choice(few, count)), np.sort(rng.integers(0, 2**64, count, dtype=np.uint64))):
        asked = np.concatenate([hashes, few, rng.integers(0, 2**64, 50, dtype=np.uint64)])
        assert id_lookup._first_places(hashes, asked).tolist() == np.searchsorted(hashes, asked).tolist()
        lookup = np.zeros(count, [("hash", "<u8"), ("row", "<u4")])
        lookup["hash"] = hashes
        for bound in (0, 5, 1 << 63, (1 << 64) - 1):
            assert id_lookup.first_place(lookup, bound) == np.searchsorted(hashes, np.uint64(bound))
        assert id_lookup.first_place(lookup, 1 << 64) == count


def test_hashes_that_lie_apart_or_cannot_be_written_are_read_where_they_are():
    ids = [f"item {n}" for n in range(1_000)]
    lookup = sorted_lookup(ids)
    lookup.setflags(write=False)
    assert lookup["hash"].strides == (12,)
    asked = ["item 7", "nobody", "item 999"]
    assert rows_of(lookup, asked, id_lookup.id_hashes(asked), ids.__getitem__).tolist() == [7, -1, 999]


def test_a_filter_of_ids_hashes_them_once_however_many_segments_there_are(tmp_path, monkeypatch):
    hashed = []
    true = postings.id_hashes
    create_gallery(tmp_path / "gallery", dim=DIM, encoder="e", config=GalleryConfig(segment_rows=10, merge_rows=10))
    with GalleryWriter(tmp_path / "gallery") as writer:
        for start in range(0, 50, 10):
            writer.add(
                table([f"item {number}" for number in range(start, start + 10)], unit(np.random.default_rng(start), 10)), encoder="e"
            )
            writer.seal()
        assert len(writer.view.manifest.segments) == 5
        monkeypatch.setattr(postings, "id_hashes", lambda ids: hashed.append(len(ids)) or true(ids))
        wanted = ["item 3", "item 47", "nobody"]
        assert writer.view.ids({"item_id": wanted}) == wanted[:2]
    assert hashed == [3]
