"""A segment gives back what was sealed, in any order, with few reads."""

import os

import numpy as np
import pyarrow as pa
import pytest

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.items import checked_items
from reid_ray.gallery.sealed import segment as module
from reid_ray.gallery.sealed.segment import Segment, write_segment


@pytest.fixture
def sealed(tmp_path):
    """(segment, pictures): 500 items whose pictures are of any length, many of them empty."""
    rng = np.random.default_rng(0)
    pictures = [rng.bytes(int(rng.integers(0, 40)) * int(rng.random() < 0.8)) for _ in range(500)]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(np.eye(4, dtype=np.float32), (125, 1)).reshape(-1)), 4)
    table = pa.table({"item_id": [f"item {n}" for n in range(500)], "embedding": vectors, "thumbnail": pa.array(pictures, pa.binary())})
    items = checked_items(table, origin="the items")
    facts = write_segment(tmp_path, [items], rows=500, dim=4, config=GalleryConfig(), schema=items.rows.schema)
    return Segment.open(tmp_path, facts), pictures


@pytest.mark.parametrize("at_once", [1, 100, 8 << 20])
def test_pictures_are_those_of_their_rows_in_any_order_and_rows_in_a_row_are_read_together(sealed, monkeypatch, at_once):
    segment, pictures = sealed
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", at_once)
    rng, reads = np.random.default_rng(1), []
    pread = os.pread
    for rows in (np.arange(500), np.arange(100, 300), rng.permutation(500), np.flatnonzero(rng.random(500) < 0.5), np.zeros(0, np.int64)):
        monkeypatch.setattr(os, "pread", lambda *asked: reads.append(asked) or pread(*asked))
        items = segment.items(rows)
        monkeypatch.setattr(os, "pread", pread)
        assert items.thumbnails.to_pylist() == [pictures[row] for row in rows]
        assert items.ids() == [f"item {row}" for row in rows]
        assert max((length for _, length, _ in reads), default=0) <= max(at_once, 40)
        if at_once > 100_000 and np.array_equal(rows, np.arange(500)):
            assert len(reads) == 1
        reads.clear()
