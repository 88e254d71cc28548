"""Columns of a user's own by the images' numbers in their listing: what the images' rows have, whatever they lie in."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.config.common import ImagesConfig
from reid_ray.data.labels.own_rows import own_by_place
from reid_ray.data.sources import image_listing, iter_images
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES, table_of

COUNT = 150


def some_images(folder):
    """A table of three files in row groups of 20: zones, times of day, a column that CAPTIONS has, and one that the last file lacks."""
    rows = [{"image_id": f"{n:03d}", "image": bytes([n]), "split": "train" if n % 3 else "val"} for n in range(COUNT)]
    table = table_of(IMAGES, rows).append_column("zone", pa.array([f"zone {n % 7}" if n % 5 else None for n in range(COUNT)]))
    table = table.append_column("seed", pa.array(range(COUNT))).append_column("floor", pa.array(range(COUNT), pa.int16()))
    folder.mkdir()
    for number, start in enumerate((0, 70, 130)):
        part = table.slice(start, 60 if start else 70)
        pq.write_table(part if start < 130 else part.drop_columns(["floor"]), folder / f"{number}.parquet", row_group_size=20)
    return folder


def a_folder(folder):
    for n in range(COUNT):
        (folder / f"zone{n % 4}").mkdir(parents=True, exist_ok=True)
        (folder / f"zone{n % 4}" / f"{n:03d}.jpg").write_bytes(bytes([n]))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"split": "val"},
        {"split": "train", "limit": 33},
        {"own": ["zone"]},
        {"source": "folder", "pattern": r"^(?P<zone>\w+)/(?P<seed>\d)"},
    ],
)
def test_they_are_those_of_the_rows_that_carry_them(options, tmp_path):
    source = options.get("source", "parquet")
    place = some_images(tmp_path / "t") if source == "parquet" else a_folder(tmp_path / "t")
    config = ImagesConfig.model_validate({"source": source, "path": str(place), **options})
    listing = image_listing(config)
    own = own_by_place(config, listing, beside=CAPTIONS)
    rows = pa.concat_tables(iter_images(config, listing=image_listing(config, carry=True)))
    assert own.own.names == (["zone", "floor"] if source == "parquet" and "own" not in options else ["zone"])
    assert rows.num_rows == listing.count
    wanted = rows.select(own.own.names)
    for drawn in (
        np.arange(listing.count),
        np.random.default_rng(0).permutation(listing.count),
        np.repeat(np.arange(listing.count), 3),
        [],
    ):
        assert own.take(np.array(drawn, np.int64)).to_pylist() == wanted.take(pa.array(drawn, pa.int64())).to_pylist()


def test_without_any_there_are_none_and_what_cannot_be_carried_is_refused_by_name(tmp_path):
    pq.write_table(table_of(IMAGES, [{"image_id": "a"}]), tmp_path / "plain.parquet")
    config = ImagesConfig(source="parquet", path=str(tmp_path / "plain.parquet"))
    assert own_by_place(config, image_listing(config), beside=CAPTIONS) is None
    odd = table_of(IMAGES, [{"image_id": "a"}]).append_column("boxes", pa.array([[1, 2]]))
    pq.write_table(odd, tmp_path / "odd.parquet")
    config = ImagesConfig(source="parquet", path=str(tmp_path / "odd.parquet"))
    with refused(DataError, "odd.parquet", "'boxes'"):
        own_by_place(config, image_listing(config), beside=CAPTIONS)
