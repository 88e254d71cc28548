"""A service that lost a share of its gallery answers from the others and names it, whatever is asked of the gallery as a whole."""

import pyarrow as pa
import pytest
from lost_shares import Losable
from opened_doors import own_machine
from small_services import ITEMS, VECTORS, Reading, sent

from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.shards.sharded_view import ShardedView
from reid_ray.gallery.shards.share import Share
from reid_ray.retrieval.search import SearchEngine
from reid_ray.retrieval.searched_folder import SearchedGallery
from reid_ray.serve.api.application import make_api
from reid_ray.serve.api.schema import BrowseOut, FacetsOut, InfoOut, SearchOut
from reid_ray.serve.config import SearcherConfig, ServeConfig
from reid_ray.serve.operations.search_operations import SearchOperations

ASKED = {
    "search": ("POST", "/v1/search", {"text": "1 red", "k": ITEMS}, SearchOut),
    "browse": ("POST", "/v1/browse", {"k": ITEMS}, BrowseOut),
    "facets": ("POST", "/v1/facets", {"columns": ["camera_id"]}, FacetsOut),
    "info": ("GET", "/v1/info", None, InfoOut),
}


@pytest.fixture
def shards(tmp_path):
    rows = [{"item_id": f"{n}", "camera_id": n % 3} for n in range(ITEMS)]
    folder, half = tmp_path / "gallery", ITEMS // 2
    create_gallery(folder, dim=VECTORS.shape[1], encoder="e", config=GalleryConfig(segment_rows=half, merge_rows=half))
    with GalleryWriter(folder) as writer:
        for first in (0, half):
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[first : first + half].reshape(-1)), VECTORS.shape[1])
            writer.add(pa.Table.from_pylist(rows[first : first + half]).append_column("embedding", vectors), encoder="e")
    return folder, [Losable(folder, Share(number, 2)) for number in range(2)]


@pytest.mark.parametrize("what", ASKED)
def test_whatever_is_asked_of_the_gallery_as_a_whole_names_the_share_that_it_lacks(tmp_path, shards, what):
    folder, halves = shards
    engine = SearchEngine(Reading(), SearchedGallery(folder, ShardedView(halves, lost="say")))
    operations = SearchOperations(lambda: engine, ServeConfig(), SearcherConfig())
    operations.load()
    api, (method, path, body, schema) = make_api(operations, access=own_machine(tmp_path)), ASKED[what]
    for lost in ([], [1], []):
        halves[1].lost = bool(lost)
        answer = schema.model_validate_json(sent(api, method, path, json=body).content)
        assert answer.missing_shares == lost
        assert (seen(answer) < ITEMS) == bool(lost)


def seen(answer):
    """How many items an answer speaks of."""
    if isinstance(answer, SearchOut):
        return len(answer.hits)
    if isinstance(answer, FacetsOut):
        return sum(each.count for each in answer.columns["camera_id"].values)
    return len(answer.items) if isinstance(answer, BrowseOut) else answer.items
