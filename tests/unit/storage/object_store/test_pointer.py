"""Readers of an output at an address: whatever they name below it is the result of that moment, and stays it."""

import json

import pyarrow as pa
import pytest
from bucket import s3_server
from refusals import refused

from reid_ray.config import Section
from reid_ray.config.common import ImagesConfig
from reid_ray.data.formats.generic.parquet import _table_store
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, table_of
from reid_ray.storage import JobOutput, TableWriter, parquet_files, read_manifest, read_table, run_of
from reid_ray.storage.object_store.object_client import ObjectFolder
from reid_ray.storage.object_store.pointer import Pointer, pointer_in, reading_place
from reid_ray.storage.provenance import content_at

pytestmark = pytest.mark.slow  # a server of objects starts, and is asked over HTTP


class Config(Section):
    number: int = 0


@pytest.fixture(scope="module")
def s3():
    with s3_server() as bucket:
        yield bucket


def rows(number) -> pa.Table:
    return table_of(CAPTIONS, [{"caption_id": f"{number}", "image_id": "i", "kind": "static", "status": "ok", "text": "A man."}])


def write(address, number):
    with (
        JobOutput("test", address, Config(number=number), if_exists="replace") as out,
        TableWriter(out.folder / "captions", CAPTIONS) as to,
    ):
        to.append(rows(number))


def test_a_table_its_manifest_and_its_run_are_found_by_the_outputs_address(s3):
    out, table = s3.address("a b/out"), s3.address("a b/out/captions")
    write(out, 1)
    manifest = read_manifest(out)
    assert manifest["config"]["number"] == 1
    assert run_of(out) == run_of(table) == manifest["run_id"]
    assert read_table(table, CAPTIONS).equals(rows(1))
    file = s3.address("a b/out/captions/part-00000.parquet")
    assert read_table(file, CAPTIONS).equals(rows(1))
    store = _table_store(out)  # as export and lint find captions
    assert [store.locate(name) for name in store.walk()] == [str(each) for each in parquet_files(table)]
    first = content_at(table)
    assert content_at(table) == first
    write(out, 2)
    assert content_at(table) != first
    assert read_table(table, CAPTIONS).equals(rows(2))
    assert read_manifest(out)["config"]["number"] == 2


def test_a_reader_keeps_the_result_that_it_found(s3):
    out = s3.address("pinned/out")
    write(out, 1)
    place = reading_place(out)
    assert reading_place(place) == place
    (file,) = parquet_files(s3.address("pinned/out/captions"))
    write(out, 2)
    assert reading_place(out) != place
    with refused(DataError, "pinned/out/run-"), file.open():  # gone with the older result; never the newer one's
        pass


def test_what_is_no_output_is_read_where_it_lies(s3):
    s3.write("plain/captions/part-0.parquet", b"?")
    for location in (s3.address("plain/captions"), "/a/path", "runs/x", "hdfs://host/x"):
        assert reading_place(location) == location
    assert run_of(s3.address("plain/captions")) is None
    with refused(DataError, "plain/manifest.json", "missing"):
        read_manifest(s3.address("plain"))
    with JobOutput("test", s3.address("begun/out"), Config()).hold():
        assert reading_place(s3.address("begun/out")) == s3.address("begun/out")


def test_a_pointer_of_a_newer_version_or_of_somebody_else_is_refused(s3):
    newer = json.loads(Pointer(None, None, None, "").encoded()) | {"format": 99}
    s3.write("newer/out/current.json", json.dumps(newer).encode())
    for ask in (lambda: reading_place(s3.address("newer/out/captions")), lambda: JobOutput("test", s3.address("newer/out"), Config())):
        with refused(DataError, "newer/out/current.json", "99", "upgrade"):
            ask()
    s3.write("theirs/out/current.json", b"{}")
    with refused(DataError, "theirs/out/current.json", "output.path"):
        JobOutput("test", s3.address("theirs/out"), Config())
    assert reading_place(s3.address("theirs/out")) == s3.address("theirs/out")
    assert pointer_in(b"[" * 10_000, origin="") is None
    assert ObjectFolder(s3.address("theirs/out")).read("current.json").data == b"{}"


def test_an_output_that_is_read_by_its_own_job_is_refused(s3):
    class Images(Section):
        images: ImagesConfig = ImagesConfig(source="parquet", path=s3.address("loop/out/captions"))

    with refused(DataError, "output.path", "images.path"):
        JobOutput("test", s3.address("loop/out"), Images())
