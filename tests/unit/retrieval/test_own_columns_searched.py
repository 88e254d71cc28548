"""Columns of a user's own come from a folder into a gallery, whichever way the vectors go, and are what it filters and counts by."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.retrieval.embed.job import run_embed
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.retrieval.index.table_adding import add_tables

pytestmark = pytest.mark.slow  # an encoder is loaded
ENCODER = "builtin:tiny-encoder"
PATTERN = r"(?P<zone>[^/]+)/(?P<camera>[^_]+)_(?P<time>\d{8}T\d{6})"


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    for number, row in enumerate(SyntheticPeople(SyntheticConfig(identities=3, images_per_identity=2, seed=1)).image_table().to_pylist()):
        file = folder / ("hall" if number < 4 else "yard") / f"gate{'BA'[number % 2]}_20260301T08150{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(row["image"])
    return folder


@pytest.mark.parametrize("way", ["index", "ingest, embed and add"])
def test_a_gallery_filters_by_what_paths_say(crops, tmp_path, way, capsys):
    labels = {"pattern": PATTERN, "time_zone": "UTC"}
    if way == "index":
        images = {"source": "folder", "path": str(crops), **labels}
        output = {"path": str(tmp_path / "gallery")}
        manifest = run_index(IndexJob.model_validate({"images": images, "encoder": ENCODER, "output": output}))
    else:
        source = {"format": "folder", "path": str(crops), **labels}
        run_ingest(IngestJob.model_validate({"source": source, "images": "path", "output": {"path": str(tmp_path / "tables")}}))
        images = {"source": "parquet", "path": str(tmp_path / "tables" / "images")}
        output = {"path": str(tmp_path / "vectors")}
        manifest = run_embed(EmbedJob.model_validate({"images": images, "encoder": ENCODER, "output": output}))
        assert {"zone", "camera", "time"} <= set(pq.read_schema(next((tmp_path / "vectors" / "embeddings").glob("*.parquet"))).names)
        add_tables(tmp_path / "gallery", [str(tmp_path / "vectors" / "embeddings")], GalleryConfig())
    assert manifest["facts"]["own_columns"] == ["zone", "camera", "time"]
    assert "zone, camera, time" in capsys.readouterr().out
    view = GalleryView(tmp_path / "gallery")
    assert view.facets(["zone", "camera", "camera_id"]) == {
        "zone": {"hall": 4, "yard": 2},
        "camera": {"gateA": 3, "gateB": 3},
        "camera_id": {1: 3, 2: 3},
    }
    query = view.vectors(view.ids({"camera": "gateA"})[:1])
    where = {"zone": "hall", "camera": ["gateA", "north"], "time": {"from": "2026-03-01T08:15:02+00:00"}}
    (hits,) = view.search(query, 10, where=where)
    assert [(hit.item_id, hit.item["time"]) for hit in hits] == [
        ("hall/gateA_20260301T081503.jpg", datetime(2026, 3, 1, 8, 15, 3, tzinfo=UTC))
    ]


def test_an_export_says_which_columns_it_leaves_behind(crops, tmp_path, capsys):
    source = {"format": "folder", "path": str(crops), "pattern": PATTERN, "time_zone": "UTC"}
    run_ingest(IngestJob.model_validate({"source": source, "output": {"path": str(tmp_path / "tables")}}))
    capsys.readouterr()
    job = {"format": "webdataset", "tables": str(tmp_path / "tables"), "output": {"path": str(tmp_path / "shards")}}
    manifest = run_export(ExportJob.model_validate(job))
    assert manifest["facts"]["own_columns_left"] == ["zone", "camera", "time"]
    assert "zone, camera, time" in capsys.readouterr().out
