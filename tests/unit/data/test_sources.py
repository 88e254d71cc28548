"""Sources: every image file is a row, nothing else is, and what cannot be used at all is refused by name."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusals import refused

from reid_ray.config.common import ImagesConfig, PoolConfig, SyntheticConfig
from reid_ray.data.pieces import MAX_FILE_BYTES, SETTLED_S, SOURCED
from reid_ray.data.sources import image_listing, iter_images, readers_for
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import ConfigError, DataError
from reid_ray.records import IMAGES, table_of


def _write_jpeg(path: Path, seed: int = 0) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(path, "JPEG")
    return path.read_bytes()


def _rows(config: ImagesConfig) -> list[dict]:
    tables = list(iter_images(config))
    assert all(table.schema.equals(SOURCED) for table in tables)
    return pa.concat_tables(tables).to_pylist()


def test_a_folder_gives_every_image_file_below_it_a_folders_files_by_name_and_then_its_folders(tmp_path):
    crops = tmp_path / "crops"
    data = {name: _write_jpeg(crops / name, seed) for seed, name in enumerate(["b.jpg", "a/z.JPEG", "a/b/c.jpg", "a.jpg"])}
    for other in ["notes.txt", ".hidden.jpg", ".cache/x.jpg", "labels.json"]:
        (crops / other).parent.mkdir(exist_ok=True)
        (crops / other).write_bytes(b"no image")
    config = ImagesConfig(source="folder", path=str(crops))
    rows = _rows(config)
    assert [row["image_id"] for row in rows] == ["a.jpg", "b.jpg", "a/z.JPEG", "a/b/c.jpg"]
    assert image_listing(config).count == len(data)
    for row in rows:
        assert row["image"] == data[row["image_id"]]
        assert row["image_sha256"] == hashlib.sha256(row["image"]).hexdigest()
        assert (row["width"], row["height"], row["dataset"], row["split"]) == (8, 16, "crops", None)
        assert Path(row["path"]).read_bytes() == row["image"]


def test_a_file_that_cannot_be_read_is_a_row_without_bytes(tmp_path):
    _write_jpeg(tmp_path / "good.jpg")
    (tmp_path / "broken_link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would block for ever
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    rows = {row["image_id"]: row for row in _rows(ImagesConfig(source="folder", path=str(tmp_path)))}
    assert len(rows) == 5
    assert {name: row["unread"].partition(":")[0] for name, row in rows.items() if row["image"] is None} == {
        "broken_link.jpg": "missing",
        "pipe.png": "unreadable_file",
    }
    assert rows["empty.jpg"]["image"] == b""
    assert rows["text.jpg"]["image"] == b"not a picture"
    assert rows["text.jpg"]["width"] is None


def test_a_file_that_vanishes_after_listing_is_a_row_without_bytes(tmp_path):
    for seed in range(3):
        _write_jpeg(tmp_path / f"{seed}.jpg", seed)
    config = ImagesConfig(source="folder", path=str(tmp_path))
    listing = image_listing(config)
    (tmp_path / "1.jpg").unlink()
    rows = pa.concat_tables(iter_images(config, listing=listing)).to_pylist()
    assert [row["image"] is None for row in rows] == [False, True, False]


def test_names_that_are_not_unicode_and_links_that_loop_are_survived(tmp_path):
    _write_jpeg(tmp_path / "a" / "plain.jpg")
    os.link(tmp_path / "a" / "plain.jpg", os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    rows = _rows(ImagesConfig(source="folder", path=str(tmp_path)))
    assert [row["image_id"] for row in rows] == ["caf\\xe9.jpg", "a/plain.jpg"]
    assert all(row["image"] for row in rows)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: (path.mkdir(), (path / "a.txt").write_text("x")),
        lambda path: path.write_text("x"),
    ],
)
def test_a_folder_without_images_is_refused_by_name(tmp_path, prepare):
    prepare(tmp_path / "crops")
    with refused(DataError, str(tmp_path / "crops"), "images.path"):
        image_listing(ImagesConfig(source="folder", path=str(tmp_path / "crops")))


def test_a_split_of_a_folder_is_refused(tmp_path):
    _write_jpeg(tmp_path / "a.jpg")
    with refused(ConfigError, "images.split"):
        image_listing(ImagesConfig(source="folder", path=str(tmp_path), split="train"))


def _write_parquet(folder: Path) -> list[dict]:
    """Two files, small row groups, splits mixed; every third row keeps only a path."""
    rows = []
    for number in range(100):
        data = _write_jpeg(folder / "crops" / f"{number}.jpg", number)
        by_path = number % 3 == 0
        rows.append(
            {
                "image_id": f"{number:03d}",
                "image": None if by_path else data,
                "path": f"crops/{number}.jpg" if by_path else None,
                "split": "train" if number % 4 else "test",
                "person_id": number // 2,
            }
        )
    pq.write_table(table_of(IMAGES, rows[:60]), folder / "part-0.parquet", row_group_size=40)
    pq.write_table(table_of(IMAGES, rows[60:]), folder / "part-1.parquet", row_group_size=40)
    return rows


@pytest.mark.parametrize("split", [None, "train", "test"])
@pytest.mark.parametrize("limit", [None, 1, 41, 1000])
def test_parquet_honours_split_and_limit_and_reads_paths(tmp_path, split, limit):
    written = [row["image_id"] for row in _write_parquet(tmp_path) if split in (None, row["split"])][:limit]
    config = ImagesConfig(source="parquet", path=str(tmp_path), split=split, limit=limit)
    rows = _rows(config)
    assert [row["image_id"] for row in rows] == written
    assert image_listing(config).count == len(written)
    for row in rows:
        assert row["image_sha256"] == hashlib.sha256((tmp_path / "crops" / f"{int(row['image_id'])}.jpg").read_bytes()).hexdigest()


def test_parquet_that_is_no_image_table_or_lacks_the_split_is_refused(tmp_path):
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "other.parquet")
    with refused(DataError, "image_id"):
        image_listing(ImagesConfig(source="parquet", path=str(tmp_path / "other.parquet")))
    (tmp_path / "text.parquet").write_text("no parquet")
    with refused(DataError, "text.parquet"):
        image_listing(ImagesConfig(source="parquet", path=str(tmp_path / "text.parquet")))
    pq.write_table(table_of(IMAGES, [{"image_id": "a", "split": "train"}]), tmp_path / "good.parquet")
    with refused(DataError, "good.parquet", "'val'", "images.split"):
        image_listing(ImagesConfig(source="parquet", path=str(tmp_path / "good.parquet"), split="val"))


def test_a_table_in_folders_is_read_and_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    (tmp_path / "part.parquet").mkdir()
    pq.write_table(table_of(IMAGES, [{"image_id": "a"}]), tmp_path / "part.parquet" / "0.parquet")
    config = ImagesConfig(source="parquet", path=str(tmp_path))
    assert image_listing(config).count == 1
    for make in (os.mkfifo, lambda path: os.symlink("nowhere", path)):
        make(tmp_path / "x.parquet")
        with refused(DataError, "x.parquet"):
            image_listing(config)
        (tmp_path / "x.parquet").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("split", [None, "train", "test"])
@pytest.mark.parametrize("limit", [None, 37])
def test_synthetic_people_come_as_the_generator_makes_them(split, limit):
    people = SyntheticConfig(identities=20, images_per_identity=4)
    whole = [row for row in SyntheticPeople(people).image_table().to_pylist() if split in (None, row["split"])][:limit]
    config = ImagesConfig(synthetic=people, split=split, limit=limit)
    assert _rows(config) == [row | {"unread": None} for row in whole]
    assert image_listing(config).count == len(whole)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["synthetic", "folder", "parquet"])
def test_rows_of_some_images_are_theirs_of_the_whole_source(tmp_path, source):
    if source == "parquet":
        _write_parquet(tmp_path)
    for number in range(40 if source == "folder" else 0):
        _write_jpeg(tmp_path / f"{number}.jpg", number)
    path = None if source == "synthetic" else str(tmp_path)
    config = ImagesConfig(source=source, path=path, synthetic=SyntheticConfig(identities=20, images_per_identity=4))
    rows = _rows(config)
    ids = [rows[at]["image_id"] for at in (1, 17, 38)]
    assert [row for table in iter_images(config, only=pa.array(ids)) for row in table.to_pylist()] == [rows[at] for at in (1, 17, 38)]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_reader_that_is_itself_in_trouble_does_not_blame_the_file(tmp_path, monkeypatch, code):
    _write_jpeg(tmp_path / "a.jpg")

    real = os.open

    def fail(number: int):
        def refuse(path, *options, **more):
            if str(path).endswith("a.jpg"):
                raise OSError(number, os.strerror(number))
            return real(path, *options, **more)

        monkeypatch.setattr(os, "open", refuse)
        return _rows(ImagesConfig(source="folder", path=str(tmp_path)))

    assert [row["image"] for row in fail(errno.EIO)] == [None]  # a disk that cannot give this file is a row
    with pytest.raises(OSError, match=os.strerror(code)):
        fail(code)


@pytest.mark.slow
def test_a_file_that_is_far_too_large_is_a_row_without_bytes(tmp_path):
    _write_jpeg(tmp_path / "a.jpg")
    with (tmp_path / "b.jpg").open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    assert [row["image"] is None for row in _rows(ImagesConfig(source="folder", path=str(tmp_path)))] == [False, True]


def test_readers_follow_the_pool_unless_they_are_given():
    pools = [PoolConfig(), PoolConfig(replicas=8), PoolConfig(replicas=4, max_replicas=64)]
    readers = [readers_for(ImagesConfig(), pool.most) for pool in pools]
    assert readers[0] == readers_for(ImagesConfig(), 0) == 2
    assert readers == sorted(readers)
    assert 200 * readers[2] >= 40 * 64  # pictures a second: read, and eaten
    assert [readers_for(ImagesConfig(readers=3), pool.most) for pool in pools] == [3, 3, 3]


# --- by what an image's state is known without reading it


def _settled(path: Path, ago: float = 60.0) -> None:
    then = time.time() - ago
    os.utime(path, (then, then))


def _places(config: ImagesConfig, session: str) -> list[str]:
    return [place for piece in image_listing(config).places(session) for place in piece]


def test_a_file_is_known_by_path_size_and_time_of_change_and_while_it_is_young_in_one_session_only(tmp_path):
    for name in ("old.jpg", "young.jpg"):
        _write_jpeg(tmp_path / name)
    _settled(tmp_path / "old.jpg")
    _settled(tmp_path / "young.jpg", ago=SETTLED_S / 2)
    config = ImagesConfig(source="folder", path=str(tmp_path))
    (old, young), (old_later, young_later) = _places(config, "one"), _places(config, "two")
    assert old == old_later
    assert young != young_later
    _settled(tmp_path / "old.jpg", ago=61.0)  # other content of the same length, say
    touched = _places(config, "one")[0]
    with (tmp_path / "old.jpg").open("ab") as file:
        file.write(b"x")
    _settled(tmp_path / "old.jpg")
    assert len({old, touched, _places(config, "one")[0]}) == 3


def test_rows_of_a_table_are_known_by_the_table_only_if_their_bytes_lie_in_it(tmp_path):
    rows = [{"image_id": name, "image": _write_jpeg(tmp_path / f"{name}.jpg"), "path": f"{name}.jpg"} for name in ("a", "b")]
    for name, table in (("whole", rows), ("mixed", [rows[0], rows[1] | {"image": None}])):
        pq.write_table(table_of(IMAGES, table), tmp_path / f"{name}.parquet")
        _settled(tmp_path / f"{name}.parquet")
    whole, mixed = (ImagesConfig(source="parquet", path=str(tmp_path / f"{name}.parquet")) for name in ("whole", "mixed"))
    assert _places(whole, "one") == _places(whole, "two")
    assert not set(_places(mixed, "one")) & set(_places(mixed, "two"))
