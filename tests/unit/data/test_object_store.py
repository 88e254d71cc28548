"""Object stores over the wire: every read goes through pyarrow's S3 client and HTTP to a server on this machine (moto's)."""

import logging
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pyarrow.compute as pc
import pytest
from pyarrow import fs

from reid_ray.config.common import OutputConfig
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.failures import FAILURES
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import read_table

SAME = ["image_id", "image", "image_sha256", "width", "height", "dataset", "split", "person_id", "camera_id"]  # all but the path


class S3:
    """A bucket `data` on an S3 server: puts local folders into it and says the address of what it holds."""

    def __init__(self, endpoint: str) -> None:
        self.options = f"?endpoint_override={endpoint}&scheme=http&region=us-east-1"
        self.filesystem = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True)
        self.filesystem.create_dir("data")

    def put(self, folder, key: str) -> str:
        fs.copy_files(str(folder), f"data/{key}", source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.filesystem)
        return self.address(key)

    def address(self, key: str) -> str:
        return f"s3://data/{quote(key)}{self.options}"


@pytest.fixture(scope="module")
def s3():
    server = pytest.importorskip("moto.server", reason="no S3 server here: make setup installs moto")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request otherwise
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # credentials come from the environment, never from the address
            environment.setenv(name, "test")
        yield S3("{}:{}".format(*running.get_host_and_port()))
    running.stop()


def ingest(format, path, out, *, images="bytes", **source):
    config = {"source": {"format": format, "path": str(path), **source}, "images": images, "output": {"path": str(out)}}
    return run_ingest(IngestJob.model_validate({**config, "load": {"processes": 0, "threads": 4}}))


def images_of(out):
    return read_table(out / "images", IMAGES).select(SAME)


@pytest.mark.parametrize("format", ["rstpreid", "msmt17"])
@pytest.mark.slow
def test_a_data_set_reads_from_s3_as_it_does_from_disk(trees, tmp_path, s3, format):
    folder = getattr(trees, format)()
    here = ingest(format, folder, tmp_path / "here")
    there = ingest(format, s3.put(folder, format), tmp_path / "there")
    assert there["counts"] == here["counts"]
    assert there["facts"] == here["facts"]
    assert images_of(tmp_path / "there").equals(images_of(tmp_path / "here"))
    assert read_table(tmp_path / "there" / "captions", CAPTIONS).equals(read_table(tmp_path / "here" / "captions", CAPTIONS))


def test_tables_and_tar_shards_read_back_from_s3(trees, tmp_path, s3):
    ingest("icfg_pedes", trees.icfg_pedes(), tmp_path / "first")
    ingest("parquet", s3.put(tmp_path / "first", "tables"), tmp_path / "again")
    assert images_of(tmp_path / "again").equals(images_of(tmp_path / "first"))
    assert read_table(tmp_path / "again" / "captions", CAPTIONS).equals(read_table(tmp_path / "first" / "captions", CAPTIONS))
    tables, output = str(tmp_path / "first"), {"path": str(tmp_path / "shards")}
    run_export(ExportJob.model_validate({"tables": tables, "format": "webdataset", "samples_per_shard": 20, "output": output}))
    ingest("webdataset", s3.put(tmp_path / "shards", "shards"), tmp_path / "unpacked")
    assert images_of(tmp_path / "unpacked").sort_by("image_id").equals(images_of(tmp_path / "first").sort_by("image_id"))


def test_images_kept_by_path_are_addresses_that_stand_alone(trees, people, tmp_path, s3):
    folder = trees.root / "crops"
    (folder / "a b").mkdir(parents=True)
    for index, name in enumerate(["a b/50%.jpg", "a b/plain.jpg", "c+d.jpg"]):
        (folder / name).write_bytes(people[index][0])
    ingest("folder", s3.put(folder, "odd names"), tmp_path / "paths", images="path")
    table = read_table(tmp_path / "paths" / "images", IMAGES)
    assert table["image"].null_count == 3
    assert all(path.startswith("s3://data/odd") and path.endswith(s3.options) for path in table["path"].to_pylist())
    ingest("parquet", tmp_path / "paths", tmp_path / "bytes")
    found = read_table(tmp_path / "bytes" / "images", IMAGES).to_pylist()
    assert {row["image_id"]: row["image"] for row in found} == {
        path: (folder / path).read_bytes() for path in table["image_id"].to_pylist()
    }


def test_what_s3_does_not_hold_is_a_counted_row_or_a_refusal(trees, tmp_path, s3):
    address = s3.put(trees.cuhk_pedes(), "cuhk")
    s3.filesystem.delete_file("data/cuhk/imgs/cam_a/001_0.jpg")
    assert ingest("cuhk_pedes", address, tmp_path / "out")["counts"] == {"read": 48, "written": 47, "failed": {"missing": 1}}
    failures = read_table(tmp_path / "out" / "failures", FAILURES)
    assert Counter(failures["reason"].to_pylist()) == {"missing": 1}
    assert pc.list_value_length(failures["captions"]).to_pylist() == [3]
    with pytest.raises(DataError, match=r"s3://data/nothing.* is not a folder"):
        ingest("cuhk_pedes", s3.address("nothing"), tmp_path / "no")


def test_an_address_is_no_output_folder():
    with pytest.raises(ValueError, match=r"is the address s3://bucket/out, but a job writes to a folder"):
        OutputConfig.model_validate({"path": "s3://bucket/out"})


def test_a_result_of_shards_at_an_address_is_kept_until_a_shard_changes(s3, tmp_path, capsys):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.jpg").write_bytes(b"no picture")
    shutil.copy(Path(__file__).parents[3] / "docs" / "people.jpg", tmp_path / "crops" / "b.jpg")

    def ingest(address):
        config = IngestJob.model_validate(
            {
                "source": {"format": "folder", "path": address},
                "load": {"processes": 0},
                "output": {"path": str(tmp_path / "out"), "if_exists": "reuse"},
            }
        )
        return run_ingest(config)["run_id"]

    first = ingest(s3.put(tmp_path / "crops", "watched"))
    assert ingest(s3.address("watched")) == first
    shutil.copy(tmp_path / "crops" / "b.jpg", tmp_path / "crops" / "c.jpg")
    assert ingest(s3.put(tmp_path / "crops", "watched")) != first
