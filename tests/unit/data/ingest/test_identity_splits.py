"""Splits by identity: whole identities, the same ones on every machine, as many as asked for."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from PIL import Image
from refusals import refused

from reid_ray.config import load_config
from reid_ray.data.image_records import ImageRecord
from reid_ray.data.images import encode_jpeg
from reid_ray.data.ingest.config import IdentitySplit, IngestJob
from reid_ray.data.ingest.identity_splits import drawn_splits, with_splits
from reid_ray.data.ingest.job import run_ingest
from reid_ray.errors import ConfigError, DataError
from reid_ray.records import IMAGES, table_of
from reid_ray.storage import TableWriter, read_table


def crops(identities, images=3, strangers=0):
    known = [ImageRecord(f"{person}_{n}.jpg", "mine", person_id=person) for person in range(identities) for n in range(images)]
    return known + [ImageRecord(f"x{n}.jpg", "mine") for n in range(strangers)]


def split(records, **wanted):
    config = IdentitySplit.model_validate(wanted)
    return {row.image_id: row.split for row in with_splits(iter(records), drawn_splits(records, config, origin="crops"), seed=config.seed)}


def people_of(found):
    sides = {}
    for name, side in found.items():
        sides.setdefault(side, set()).add(name.partition("_")[0])
    return sides


@pytest.mark.parametrize(
    ("wanted", "sizes"),
    [
        ({"val": 0.1, "test": 0.25}, {"train": 26, "val": 4, "test": 10}),
        ({"val": 3, "test": 8}, {"train": 29, "val": 3, "test": 8}),
        ({"val": 0, "test": 0.5, "train": 5}, {"train": 5, "test": 20}),
        ({"val": 0.01, "test": 0.01}, {"train": 38, "val": 1, "test": 1}),
    ],
)
def test_as_many_identities_as_wanted_are_whole_in_one_split_each(wanted, sizes):
    found = split(crops(40), **wanted)
    sides = people_of(found)
    left_over = 40 - sum(sizes.values())
    assert {name: len(people) for name, people in sides.items()} == sizes | ({None: left_over} if left_over else {})
    assert sum(len(people) for people in sides.values()) == 40  # nobody on two sides
    assert Counter(found.values()) == {name: 3 * len(people) for name, people in sides.items()}


def test_images_of_nobody_stay_unsplit_and_count_for_nothing():
    with_strangers, without = split(crops(20, strangers=50), val=0.2, test=0.3), split(crops(20), val=0.2, test=0.3)
    assert {name: side for name, side in with_strangers.items() if not name.startswith("x")} == without
    assert {with_strangers[f"x{n}.jpg"] for n in range(50)} == {None}


def test_the_order_of_the_images_changes_nothing_and_another_seed_does():
    records = crops(60)
    shuffled = random.Random(1).sample(records, len(records))
    assert split(records) == split(shuffled)
    assert split(records) != split(records, seed=1)


def test_few_change_sides_when_others_are_added():
    before, after = split(crops(200), val=0.2, test=0.2), split(crops(220), val=0.2, test=0.2)
    moved = {name.partition("_")[0] for name, side in before.items() if after[name] != side}
    assert len(moved) < 20


def test_nobody_of_one_image_is_to_be_found():
    records = [
        *crops(10, images=1),
        *[ImageRecord(f"{person}_{n}.jpg", "mine", person_id=person) for person in range(90, 94) for n in (0, 1)],
    ]
    sides = people_of(split(records, val=2, test=2))
    assert sides["val"] | sides["test"] == {"90", "91", "92", "93"}
    with refused(DataError, "crops", "14", "4 of them", "least_images"):
        split(records, val=3, test=2)
    assert len(people_of(split(records, val=3, test=2, least_images=1))["val"]) == 3


def test_what_cannot_be_split_is_refused_by_name():
    with refused(DataError, "crops", "0_0.jpg", "split val", "split_by_identity"):
        split([ImageRecord("0_0.jpg", "mine", person_id=0, split="val")])
    with refused(DataError, "crops", "person_id"):
        split(crops(0, strangers=3))
    for overrides in (["split_by_identity.val=1.5"], ["split_by_identity={val: 0.6, test: 0.5}"], ["split_by_identity.test=-1"]):
        with refused(ConfigError, "split_by_identity"):
            load_config(IngestJob, None, ["source={format: folder, path: x}", "output.path=o", *overrides])


def test_a_folder_is_ingested_with_splits_by_identity_and_says_how_many(trees, tmp_path, capsys):
    for name in ("query", "bounding_box_test"):
        folder = trees.market1501() / name
        for file in folder.glob("-1_*"):
            file.unlink()
    pattern = r"(?:^|/)(?P<person_id>\d+)_c(?P<camera_id>\d+)"
    source = {"format": "folder", "path": str(trees.market1501()), "pattern": pattern}
    wanted = {"split_by_identity": {"val": 2, "test": 3}, "load": {"processes": 0}, "output": {"path": str(tmp_path / "out")}}
    facts = run_ingest(IngestJob.model_validate({"source": source, **wanted}))["facts"]
    images = read_table(tmp_path / "out" / "images", IMAGES)
    sides = {}
    for person, side in zip(images["person_id"].to_pylist(), images["split"].to_pylist(), strict=True):
        sides.setdefault(person, set()).add(side)
    assert {len(side) for side in sides.values()} == {1}
    assert {name: each["identities"] for name, each in facts["splits"].items()} == {"train": 8, "val": 2, "test": 3}
    assert "test 3 identities" in capsys.readouterr().out


def test_who_and_what_stays_without_a_split_is_said_and_counted(tmp_path, capsys):
    picture = encode_jpeg(Image.new("RGB", (8, 16)))
    rows = [{"image_id": each.image_id, "image": picture, "person_id": each.person_id} for each in crops(4, images=2, strangers=3)]
    with TableWriter(tmp_path / "images", IMAGES) as writer:
        writer.append(table_of(IMAGES, rows))
    wanted = {"split_by_identity": {"train": 1, "val": 1, "test": 1}, "load": {"processes": 0}, "output": {"path": str(tmp_path / "out")}}
    facts = run_ingest(IngestJob.model_validate({"source": {"format": "parquet", "path": str(tmp_path / "images")}, **wanted}))["facts"]
    assert (facts["unlabelled"], facts["splits"]["none"]) == (3, {"images": 5, "identities": 1})
    said = capsys.readouterr().out
    assert "test 1 identity (2 images), train 1 identity (2 images), val 1 identity (2 images), in no split 1 identity (2 images); " in said
    assert "3 images of nobody known in no split -> " in said
