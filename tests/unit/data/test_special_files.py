"""What may lie in a folder beside images: pipes, sockets, loops, names that are no text. Each is read once, or is a row with a reason."""

import errno
import os
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from refusals import refused
from shards import shard

from reid_ray.config.common import ImagesConfig
from reid_ray.data.failures import FAILURES
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.formats.registry import ImageRecord, read_source
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.sources import image_listing
from reid_ray.errors import DataError
from reid_ray.records import IMAGES
from reid_ray.storage import read_table
from reid_ray.storage.file_systems import open_store
from reid_ray.storage.regular_files import read_regular


def ingest(path, out, format="folder", **options):
    config = {"source": {"format": format, "path": str(path)}, "load": {"processes": 0}, "output": {"path": str(out)}, **options}
    return run_ingest(IngestJob.model_validate(config))["counts"]


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def loops(folder: Path) -> None:
    """A link to itself, one to the parent, one to the folder it lies in, and one to nothing."""
    (folder / "again").symlink_to("again")
    (folder / "up").symlink_to("..")
    (folder / "self").symlink_to(".")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")


def test_a_tree_of_links_is_read_once_and_by_its_real_names(people, tmp_path):
    crops = tmp_path / "crops"
    put(crops / "z_real" / "a.jpg", people[0][0])
    put(tmp_path / "elsewhere" / "b.jpg", people[1][0])
    (crops / "a_link").symlink_to("z_real")
    (crops / "b_link").symlink_to(tmp_path / "elsewhere")
    loops(crops / "z_real")
    assert list(open_store(crops).walk()) == ["z_real/a.jpg", "z_real/again", "z_real/broken.jpg", "b_link/b.jpg"]
    assert ingest(crops, tmp_path / "out") == {"read": 4, "written": 2, "failed": {"missing": 1}, "left_out": {"no_image_file": 1}}
    assert read_table(tmp_path / "out" / "images", IMAGES)["image_id"].to_pylist() == ["z_real/a.jpg", "b_link/b.jpg"]
    assert image_listing(ImagesConfig(source="folder", path=str(crops))).count == 3


@pytest.mark.slow
def test_a_tree_may_be_as_deep_as_the_system_lets_it(tmp_path):
    folder = str(tmp_path / "set")
    os.mkdir(folder)
    while len(folder) < 3900:
        folder += "/d"
        os.mkdir(folder)
    Path(folder, "a.jpg").write_bytes(b"x")
    assert list(open_store(tmp_path / "set").walk()) == [f"{folder}/a.jpg".removeprefix(f"{tmp_path}/set/")]
    subprocess.run(["rm", "-r", tmp_path / "set"], check=True)  # shutil.rmtree calls itself for every level


@pytest.mark.parametrize("format", ["market1501", "luperson", "webdataset", "msmt17"])
def test_links_that_loop_stop_no_reader(trees, people, tmp_path, format):
    if format == "luperson":
        put(tmp_path / "data" / "01" / "a.jpg", people[0][0])
        folder, inner = tmp_path / "data", tmp_path / "data" / "01"
    elif format == "webdataset":
        folder = inner = tmp_path / "data"
        shard(folder / "0.tar", [("a.jpg", people[0][0])])
    else:
        folder = getattr(trees, format)()
        inner = folder / ("query" if format == "market1501" else "train")
    before = [row for row in read_source(SourceConfig(format=format, path=str(folder))) if isinstance(row, ImageRecord)]
    loops(inner)
    after = [row for row in read_source(SourceConfig(format=format, path=str(folder))) if isinstance(row, ImageRecord)]
    assert {row.image_id for row in after} - {row.image_id for row in before} <= {"01/broken.jpg"}
    assert {row.image_id for row in before} <= {row.image_id for row in after}


def test_what_is_no_regular_file_is_a_failed_row_and_hangs_nothing(people, tmp_path):
    crops = tmp_path / "crops"
    put(crops / "good.jpg", people[0][0])
    os.mkfifo(crops / "pipe.jpg")
    (crops / "zero.jpg").symlink_to("/dev/zero")
    (crops / "self.jpg").symlink_to("self.jpg")
    (crops / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(crops / "s.jpg"))
        counts = ingest(crops, tmp_path / "out")
    assert counts == {"read": 5, "written": 1, "failed": {"unreadable_file": 4}, "left_out": {}}
    details = dict(read_table(tmp_path / "out" / "failures", FAILURES).select(["image_id", "detail"]).to_pandas().values)
    assert "named pipe" in details["pipe.jpg"]
    assert "device" in details["zero.jpg"]


def test_a_name_that_is_no_utf_8_is_one_row_under_one_id_everywhere(people, tmp_path):
    crops = tmp_path / "crops"
    put(crops / "good.jpg", people[0][0])
    with open(os.fsencode(crops) + b"/caf\xe9.jpg", "wb") as file:
        file.write(people[1][0])
    assert ingest(crops, tmp_path / "out")["written"] == 2
    ids = read_table(tmp_path / "out" / "images", IMAGES)["image_id"].to_pylist()
    listing = image_listing(ImagesConfig(source="folder", path=str(crops)))
    assert ids == [table["image_id"][row].as_py() for piece in listing.pieces for table in piece.tables() for row in range(2)]
    assert ingest(crops, tmp_path / "paths", images="path") == {"read": 2, "written": 1, "failed": {"name_not_utf8": 1}, "left_out": {}}


def test_a_folder_that_cannot_be_listed_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "crops").mkdir()

    real = os.scandir

    def refuse(path):
        if str(path).endswith("crops"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with refused(DataError, "crops", "Permission denied"):
        list(read_source(SourceConfig(format="folder", path=str(tmp_path / "crops"))))
    with refused(DataError, "crops", "Permission denied"):
        image_listing(ImagesConfig(source="folder", path=str(tmp_path / "crops")))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC])
def test_a_machine_in_trouble_is_never_counted_against_a_file(people, tmp_path, monkeypatch, number):
    put(tmp_path / "crops" / "a.jpg", people[0][0])
    real = os.open

    def refuse(path, *options, **more):
        if str(path).endswith("a.jpg"):
            raise OSError(number, os.strerror(number))
        return real(path, *options, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        ingest(tmp_path / "crops", tmp_path / "out")
    with pytest.raises(OSError, match=os.strerror(number)):
        list(image_listing(ImagesConfig(source="folder", path=str(tmp_path / "crops"))).pieces[0].tables())


@pytest.mark.parametrize("size", [0, 1, 5, 70_000])
@pytest.mark.parametrize("limit", [-1, 1, 5, 6, 70_000, 70_001])
def test_a_file_comes_whole_or_cut_at_the_limit(tmp_path, size, limit):
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert read_regular(tmp_path / "a", limit=limit) == (data if limit < 0 else data[:limit])


def test_a_file_whose_size_the_system_does_not_say_comes_whole():
    assert read_regular("/proc/self/status").startswith(b"Name:")
    assert len(read_regular("/proc/self/status", limit=9)) == 9


def test_reading_asks_the_system_no_more_than_it_must(people, tmp_path, monkeypatch):
    """At millions of files every further call counts: one open and one fstat a file, and no stat to list it."""
    for index in range(20):
        put(tmp_path / "crops" / f"{index}.jpg", people[0][0])
    calls = Counter()
    for name in ("stat", "lstat", "fstat", "read"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _real=real, _name=name, **k: (calls.update([_name]), _real(*a, **k))[1])
    store = open_store(tmp_path / "crops")
    calls.clear()
    names = list(store.walk())
    assert calls["stat"] == 0
    assert calls["lstat"] < 20
    calls.clear()
    assert {store.read_bytes(name) for name in names} == {people[0][0]}
    assert calls == {"fstat": 20, "read": 20}
