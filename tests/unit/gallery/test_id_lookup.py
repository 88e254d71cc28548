"""Where ids lie: few are looked for by bisection and many at once, two of one hash told apart, in either way the same."""

import numpy as np
import pytest

from reid_ray.gallery.sealed import id_lookup
from reid_ray.gallery.sealed.id_lookup import rows_of, sorted_lookup


@pytest.mark.parametrize("few", [0, 10_000])
@pytest.mark.parametrize("bits", [64, 3])
def test_each_id_is_found_at_its_row_and_no_other_is(few, bits, monkeypatch):
    true = id_lookup.id_hashes
    monkeypatch.setattr(id_lookup, "_FEW", few)
    monkeypatch.setattr(id_lookup, "id_hashes", lambda ids: true(ids) >> np.uint64(64 - bits))
    ids = [f"item {n}" for n in np.random.default_rng(0).permutation(300)]
    asked = [*ids[::7], "nobody", "", *ids[:3]]
    found = rows_of(sorted_lookup(ids), asked, id_lookup.id_hashes(asked), ids.__getitem__)
    assert found.tolist() == [ids.index(each) if each in ids else -1 for each in asked]


def test_one_id_is_found_without_reading_all_places():
    reads = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            reads.append(key)
            return super().__getitem__(key)

    ids = [f"item {n}" for n in range(50_000)]
    lookup = sorted_lookup(ids).view(Watched)
    assert rows_of(lookup, ["item 7"], id_lookup.id_hashes(["item 7"]), ids.__getitem__).tolist() == [7]
    assert 15 <= len([key for key in reads if not isinstance(key, str)]) < 60
