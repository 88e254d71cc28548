"""A synthetic data set in each published layout is read by the ingest job's own reader, with its splits, people and losses."""

from collections import Counter

import pytest

from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import ConfigError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.rehearse.published import write_published
from reid_ray.storage import read_table

pytestmark = pytest.mark.slow  # a job for each layout
SPLITS = {
    "cuhk_pedes": {"train", "val", "test"},
    "icfg_pedes": {"train", "test"},
    "rstpreid": {"train", "val", "test"},
    "market1501": {"train", "query", "gallery"},
    "dukemtmc": {"train", "query", "gallery"},
    "msmt17": {"train", "val", "query", "gallery"},
    "cuhk03": {"train", "query", "gallery"},
    "luperson": {None},
    "luperson_mllm": {None},
    "ufine6926": {"train", "test"},
    "ufine3c": {"test"},
    "webperson": {None},
    "synth_pedes": {None},
    "itcpr": {"query", "gallery"},
    "folder": {None},
    "webdataset": {"train", "val", "test"},
}


@pytest.mark.parametrize("layout", SPLITS)
def test_the_reader_of_a_layout_finds_people_splits_and_one_damaged_image(layout, tmp_path):
    source = SourceConfig(format=layout, path=str(tmp_path / "data"))
    write_published(source, tmp_path / "data")
    manifest = run_ingest(IngestJob.model_validate({"source": source, "output": {"path": str(tmp_path / "out")}}))
    images = read_table(tmp_path / "out" / "images", IMAGES)
    assert set(images["split"].to_pylist()) == SPLITS[layout]
    assert manifest["counts"]["failed"] == {"truncated": 1}
    if None not in SPLITS[layout]:
        assert set(Counter(images["person_id"].to_pylist()).values()) <= {3, 4}, "several images of each"
        without = ("cuhk_pedes", "icfg_pedes", "ufine6926", "ufine3c", "itcpr")  # names of ours say no camera there
        cameras = {None} if layout in without else {1, 2}
        assert set(images["camera_id"].to_pylist()) == cameras
    if layout in ("cuhk_pedes", "icfg_pedes", "rstpreid", "luperson_mllm"):
        captions = read_table(tmp_path / "out" / "captions", CAPTIONS)
        kinds = {"static": 46, "dynamic": 46} if layout == "luperson_mllm" else {"human": 190}
        usable = [row["kind"] for row in captions.to_pylist() if row["status"] == "ok"]
        assert Counter(usable) == kinds


def test_a_format_without_a_layout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="parquet"):
        write_published(SourceConfig(format="parquet", path="x"), tmp_path)
