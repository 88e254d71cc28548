"""What other vector stores were found to answer wrongly does not happen here, in any kind of gallery.

faiss#5504: a graph forgets the filter. faiss#5581 and #5584: several indices searched as one apply it to other numbers, or drop it.
lance#7370: an item whose vector was replaced is found twice, once by its old vector, after the index was merged.
"""

from itertools import product

import numpy as np
import pytest
from gallery_pair import DIM, table, unit

from reid_ray.gallery.config import GalleryConfig, NearestConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.shards.joined_view import JoinedView
from reid_ray.gallery.shards.one_share import Shard
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.shards.share import Share

pytestmark = pytest.mark.slow

KINDS = [
    NearestConfig(kind="flat"),
    NearestConfig(kind="ivf", probes=2, accelerate_rows=1),
    NearestConfig(kind="ivf_rabitq", probes=2, accelerate_rows=1),
    NearestConfig(kind="hnsw", links=8, build_depth=20, search_depth=16, accelerate_rows=1),
]
N = 900


@pytest.fixture(params=KINDS, ids=lambda nearest: nearest.kind)
def gallery(request, tmp_path):
    """Three segments of 300 items, each with the index of its kind, of two cameras in turn; and their vectors."""
    folder, vectors = tmp_path / "gallery", unit(np.random.default_rng(0), N)
    create_gallery(folder, dim=DIM, encoder="e", config=GalleryConfig(nearest=request.param, segment_rows=300, merge_rows=300))
    with GalleryWriter(folder) as writer:
        for start in range(0, N, 300):
            ids = [f"item {number}" for number in range(start, start + 300)]
            writer.add(table(ids, vectors[start : start + 300], camera_id=[number % 2 for number in range(300)]), encoder="e")
            writer.seal()
            writer.compact()
        assert len(writer.view.manifest.segments) == 3
        assert bool(list(folder.rglob("*.faiss"))) == (request.param.kind != "flat")
    return folder, vectors


def readers(folder):
    shares = [Shard(folder, Share(number, 2)) for number in range(2)]
    return [GalleryView(folder), JoinedView(str(folder), ShardedView(shares))]


def test_a_filter_over_several_indices_and_shares_names_only_what_passes(gallery):
    folder, vectors = gallery
    for view, camera in product(readers(folder), (0, 1)):
        for found in view.search(vectors[::150], 20, where={"camera_id": camera}):
            assert len({hit.item_id for hit in found}) == 20
            assert {hit.item["camera_id"] for hit in found} == {camera}
        only = view.search(vectors[:1], 20, where={"item_id": ["item 2", "item 302", "item 602"]})[0]
        assert {hit.item_id for hit in only} == {"item 2", "item 302", "item 602"}


def test_an_item_whose_vector_was_replaced_is_found_once_by_its_new_vector_whatever_was_merged(gallery):
    folder, vectors = gallery
    replaced = [f"item {number}" for number in range(0, N, 90)]
    with GalleryWriter(folder) as writer:
        for change in (lambda: None, writer.seal, writer.compact):
            new = unit(np.random.default_rng(7), len(replaced))
            writer.add(table(replaced, new, camera_id=[0] * len(replaced)), encoder="e")
            change()
            for view in [writer.view, *readers(folder)]:
                for query_D, item_id in zip(new, replaced, strict=True):
                    found = view.search(query_D[None], 50)[0]
                    assert [hit.item_id for hit in found].count(item_id) == 1
                    assert found[0].item_id == item_id
                    assert found[0].score == pytest.approx(1, abs=1e-5)
                old = view.search(vectors[::90], N)
                for query_D, item_id, found in zip(new, replaced, old, strict=True):
                    [score] = [hit.score for hit in found if hit.item_id == item_id]
                    at = replaced.index(item_id)
                    assert score == pytest.approx(float(query_D @ vectors[90 * at]), abs=1e-5)  # that of the new vector
