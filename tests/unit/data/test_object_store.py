"""Object stores over the wire: every read goes through pyarrow's S3 client and HTTP to a server on this machine (moto's)."""

import shutil
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bucket import s3_server
from refusals import refused

from reid_ray.caption.existing.row_ranges import row_ranges
from reid_ray.config.common import ImagesConfig, OutputConfig
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.failures import FAILURES
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import read_source
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.lint.config import LintJob
from reid_ray.data.lint.job import run_lint
from reid_ray.data.pieces import MAX_FILE_BYTES, SETTLED_S, FilePiece, pack_names
from reid_ray.data.sources import image_listing, iter_images
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import file_systems, read_table
from reid_ray.storage.file_systems import Store, open_store, store_at

pytestmark = pytest.mark.slow  # a server of objects starts, and is asked over HTTP

SAME = ["image_id", "image", "image_sha256", "width", "height", "dataset", "split", "person_id", "camera_id"]  # all but the path


@pytest.fixture(scope="module")
def s3():
    with s3_server() as bucket:
        yield bucket


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


def test_every_reader_of_tables_follows_an_outputs_pointer_to_the_result_that_it_names(trees, tmp_path, s3):
    ingest("icfg_pedes", trees.icfg_pedes(), tmp_path / "tables")
    here, there = str(tmp_path / "tables"), s3.put_output(tmp_path / "tables", "outputs/tables")
    s3.write("outputs/tables/run-" + "0" * 32 + "/images/part-0.parquet", b"left by a run that died")

    def inside(place, name):
        path, mark, options = place.partition("?")
        return f"{path}/{name}{mark}{options}"

    def linted(place, out):
        output = {"path": str(tmp_path / out), "if_exists": "replace"}
        job = {"source": {"format": "parquet", "path": place}, "load": {"processes": 0, "threads": 2}, "output": output}
        manifest = run_lint(LintJob.model_validate(job))
        return manifest["counts"], manifest["facts"]

    readers = {
        "source": lambda place: [record.image_id for record in read_source(SourceConfig(format="parquet", path=place))],
        "data set's name": lambda place: {record.dataset for record in read_source(SourceConfig(format="parquet", path=place))},
        "source of captions": lambda place: [
            len(record.captions) for record in read_source(SourceConfig(format="parquet", path=inside(here, "images"), captions=place))
        ],
        "images": lambda place: without_path(sourced("parquet", inside(place, "images"))),
        "table": lambda place: read_table(inside(place, "captions"), CAPTIONS).to_pylist(),
        "ranges of rows": lambda place: [(each.first, each.rows) for each in row_ranges(inside(place, "captions"))],
        "lint": lambda place: linted(place, "lint"),
    }
    found = {name: (read(here), read(there)) for name, read in readers.items()}
    assert {name: there for name, (_, there) in found.items()} == {name: here for name, (here, _) in found.items()}
    assert all(here for here, _ in found.values())


def test_images_kept_by_path_are_addresses_that_stand_alone(trees, people, tmp_path, s3):
    folder = trees.root / "crops"
    (folder / "a b").mkdir(parents=True)
    for index, name in enumerate(["a b/50%.jpg", "a b/plain.jpg", "c+d.jpg"]):
        (folder / name).write_bytes(people[index][0])
    (trees.root / "own.csv").write_text("image;camera\na b/50%.jpg;gateB\nplain.jpg;gateA\nc+d.jpg;gateB\n")
    table = s3.put(trees.root, "beside").replace("?", "/own.csv?")
    ingest("folder", s3.put(folder, "odd names"), tmp_path / "paths", images="path", table=table)
    followed = ImagesConfig(source="parquet", path=str(tmp_path / "paths" / "images"))
    rows = [row for piece in iter_images(followed, listing=image_listing(followed, carry=True)) for row in piece.to_pylist()]
    assert {row["image_id"]: row["image"] for row in rows} == {row["image_id"]: (folder / row["image_id"]).read_bytes() for row in rows}
    assert sorted((row["camera"], row["camera_id"]) for row in rows) == [("gateA", 1), ("gateB", 2), ("gateB", 2)]
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
    assert ingest("cuhk_pedes", address, tmp_path / "out")["counts"] == {
        "read": 48,
        "written": 47,
        "failed": {"missing": 1},
        "left_out": {},
    }
    failures = read_table(tmp_path / "out" / "failures", FAILURES)
    assert Counter(failures["reason"].to_pylist()) == {"missing": 1}
    assert pc.list_value_length(failures["captions"]).to_pylist() == [3]
    with refused(DataError, "s3://data/nothing"):
        ingest("cuhk_pedes", s3.address("nothing"), tmp_path / "no")


def test_an_address_is_no_output_folder():
    with pytest.raises(ValueError, match=r"is the address s3://bucket/out, but this job writes to a folder"):
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


# --- the jobs that read images piece by piece


def tree(folder: Path, people, names) -> Path:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(people[index % len(people)][0])
    return folder


def sourced(source: str, path, **options) -> list[dict]:
    return pa.concat_tables(iter_images(ImagesConfig(source=source, path=str(path), **options))).to_pylist()


def without_path(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "path"} for row in rows]


NAMES = [
    "b.jpg",
    "a.jpg",
    "cam 1/p2/50%.jpg",
    "cam 1/p1/é.JPEG",
    "cam 1/z.png",
    "cam-0/x.jpg",
    "notes.txt",
    ".hidden/x.jpg",
    "cam-0/.x.jpg",
]


def test_a_folder_gives_the_same_rows_from_s3_as_from_disk_and_as_ingest_reads_it(people, tmp_path, s3):
    folder = tree(tmp_path / "crops", people, NAMES)
    (folder / "broken.jpg").write_bytes(b"no picture")
    address = s3.put(folder, "rows/crops")
    here, there = sourced("folder", folder), sourced("folder", address)
    assert [row["image_id"] for row in here] == [
        "a.jpg", "b.jpg", "broken.jpg", "cam 1/z.png", "cam 1/p1/é.JPEG", "cam 1/p2/50%.jpg", "cam-0/x.jpg",
    ]  # fmt: skip
    assert without_path(there) == without_path(here)
    assert [sourced("folder", address, limit=2)[at]["path"] for at in (0, 1)] == [row["path"] for row in there[:2]]
    ingest("folder", address, tmp_path / "ingested")
    ingested = read_table(tmp_path / "ingested" / "images", IMAGES).to_pylist()
    readable = [row for row in there if row["image_id"] != "broken.jpg"]
    assert [row | {"unread": None} for row in ingested] == readable


def test_a_table_gives_the_same_rows_from_s3_as_from_disk_whole_or_by_path(trees, tmp_path, s3):
    market = trees.market1501()
    ingest("market1501", market, tmp_path / "bytes")
    ingest("market1501", s3.put(market, "market"), tmp_path / "paths", images="path")
    addresses = {name: s3.put(tmp_path / name / "images", f"table/{name}") for name in ("bytes", "paths")}
    for split in (None, "train", "query"):
        here = sourced("parquet", tmp_path / "bytes" / "images", split=split)
        assert here
        assert sourced("parquet", addresses["bytes"], split=split) == here
        assert without_path(sourced("parquet", addresses["paths"], split=split)) == without_path(here)
    one = addresses["bytes"].replace("?", "/part-00000.parquet?")
    assert sourced("parquet", one, limit=5) == sourced("parquet", addresses["bytes"])[:5]
    assert read_table(addresses["bytes"], IMAGES).equals(read_table(tmp_path / "bytes" / "images", IMAGES))
    with pytest.raises(DataError, match=r"s3://data/table/none\?.*does not exist"):
        sourced("parquet", s3.address("table/none"))


def test_an_object_that_is_gone_frozen_or_far_too_large_is_a_row_with_its_reason(people, tmp_path, s3, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    config = ImagesConfig(source="folder", path=s3.put(tree(tmp_path / "crops", people, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]), "gone"))
    listing = image_listing(config)
    s3.filesystem.delete_file("data/gone/b.jpg")
    client = boto3.client("s3", endpoint_url=f"http://{s3.endpoint}", region_name="us-east-1")
    client.put_object(Bucket="data", Key="gone/c.jpg", Body=people[0][0], StorageClass="GLACIER")
    monkeypatch.setattr("reid_ray.data.pieces.MAX_FILE_BYTES", len(people[0][0]) + 1)
    s3.write("gone/d.jpg", people[0][0] + b"...")
    rows = pa.concat_tables(iter_images(config, listing=listing)).to_pylist()
    assert [(row["unread"] or "").partition(":")[0] for row in rows] == ["", "missing", "unreadable_file", "too_many_bytes"]
    assert [row["image"] is None for row in rows] == [False, True, True, True]
    assert MAX_FILE_BYTES > 64 << 20


def test_an_object_is_known_by_what_its_listing_told_and_a_change_is_seen_where_it_is_looked_for(people, tmp_path, s3):
    config = ImagesConfig(source="folder", path=s3.put(tree(tmp_path / "crops", people, ["a.jpg", "b.jpg"]), "states"))
    young = image_listing(config)
    assert not set(next(young.places("one"))) & set(next(young.places("two")))
    time.sleep(SETTLED_S + 0.1)
    s3.requests.clear()
    (before,) = young.places("one")
    assert before == next(young.places("two"))
    assert not s3.requests
    s3.write("states/b.jpg", b"another content")
    s3.filesystem.delete_file("data/states/a.jpg")
    (piece,) = young.pieces
    assert piece.places("one") == before  # as it was listed
    now = piece.renewed().places("one")
    assert not set(now) & set(before)
    assert young.contents() != image_listing(config).contents()


def test_listing_costs_a_request_a_thousand_objects_and_once(people, tmp_path, s3):
    names = [f"{folder}/{person}/{index}.jpg" for folder in ("cam1", "cam2") for person in range(30) for index in range(2)]
    address = s3.put(tree(tmp_path / "crops", people, names), "many")
    folder = store_at(address)
    s3.requests.clear()
    listing = image_listing(ImagesConfig(source="folder", path=address))
    assert listing.count == 120
    list(listing.places("one"))
    listing.contents()
    assert s3.requests["LIST"] <= 2 + 3  # is it there, and what lies in it and in each camera's folder
    assert s3.requests["GET"] == 0
    in_order = list(folder.walk())
    assert in_order == list(open_store(tmp_path / "crops").walk())
    s3.requests.clear()
    assert pa.concat_tables(iter_images(ImagesConfig(source="folder", path=address), listing=listing)).num_rows == 120
    assert s3.requests == {"HEAD": 120, "GET": 120}


def test_many_folders_are_listed_in_one_go(people, tmp_path, s3, monkeypatch):
    names = ["top.jpg", *(f"p{person:02d}/{index}.jpg" for person in range(20) for index in range(2))]
    address = s3.put(tree(tmp_path / "crops", people, names), "broad")
    apart = list(store_at(address).walk_states())
    monkeypatch.setattr(file_systems, "_LISTED_APART", 5)
    s3.requests.clear()
    assert list(store_at(address).walk_states()) == apart
    assert s3.requests["LIST"] == 2


@contextmanager
def answering(status: int, code: str):
    """A server that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (403, "InvalidAccessKeyId"), (400, "ExpiredToken")])
def test_a_store_that_does_not_let_this_user_in_is_one_sentence(status, code):
    with answering(status, code) as options:
        for source in ("folder", "parquet"):
            with pytest.raises(DataError, match="give credentials that may read there") as error:
                image_listing(ImagesConfig(source=source, path=f"s3://data/{code}{options}"))
            assert f"s3://data/{code}" in str(error.value)


class OneAnswer:
    """A filesystem elsewhere that answers every request alike."""

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, 0

    def open_input_stream(self, *_, **__):
        self.asked += 1
        raise OSError(self.answer)


# As pyarrow words them; the name that is asked for may hold any word.
_ASKED = "When reading information for key 'x/SLOW_DOWN expired.jpg' in bucket 'data': AWS Error "


@pytest.mark.parametrize(
    ("answer", "asked", "words"),
    [
        ("UNKNOWN (HTTP status 503) during HeadObject operation: No response body.", 3, "fewer readers"),
        ("SLOW_DOWN during GetObject operation: reduce your rate", 3, "fewer readers"),
        ("NETWORK_CONNECTION during HeadObject operation: curlCode: 6, Could not resolve hostname", 3, "check the address and the network"),
        ("UNKNOWN (HTTP status 400) during HeadObject operation: No response body.", 1, "does not accept the credentials"),
        ("ACCESS_DENIED during HeadObject operation: No response body.", 1, None),
    ],
)
def test_a_store_in_trouble_is_asked_again_and_then_one_sentence_but_one_forbidden_object_is_a_row(monkeypatch, answer, asked, words):
    monkeypatch.setattr(file_systems, "_WAITS_S", (0.01, 0.01))
    filesystem = OneAnswer(_ASKED + answer)
    piece = FilePiece(Store(filesystem, "data/x", uri="s3://data/x"), pack_names(["SLOW_DOWN expired.jpg"]), 10_000)
    if words is None:
        (table,) = piece.tables()
        assert table["unread"][0].as_py().startswith("unreadable_file: ")
    else:
        with pytest.raises(DataError, match=words):
            list(piece.tables())
    assert filesystem.asked == asked
