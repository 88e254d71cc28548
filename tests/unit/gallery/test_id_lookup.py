"""Where ids lie: each at its place among sorted hashes, two of one hash told apart."""

import numpy as np
import pytest

from reid_ray.gallery.sealed import id_lookup
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
