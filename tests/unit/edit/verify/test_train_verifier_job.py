"""The train_verifier job: learns from some people, states its error on others, and counts what it cannot use."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from refusals import refused

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.sources import image_listing
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.edit.verify.config import TrainVerifierJob
from reid_ray.edit.verify.fitting import UNKNOWN, moved
from reid_ray.edit.verify.job import read_labelled, run_train_verifier
from reid_ray.edit.verify.verifier import Verifier
from reid_ray.errors import DataError
from reid_ray.records import IMAGES, table_of
from reid_ray.storage import Counts

PEOPLE = SyntheticPeople(SyntheticConfig(identities=60, images_per_identity=2, height=64, width=32, seed=3))


def table(tmp_path, **changes):
    rows = PEOPLE.image_table().to_pylist()
    for row, change in changes.items():
        rows[int(row.removeprefix("row"))] |= change
    pq.write_table(table_of(IMAGES, rows), tmp_path / "images.parquet")
    return tmp_path / "images.parquet"


def job(path, tmp_path, **options):
    small = {
        "reader": {"channels": [4, 8, 8, 8], "hidden": 16},
        "fit": {"epochs": 2, "batch_size": 16},
        "output": {"path": str(tmp_path / "out")},
    }
    return TrainVerifierJob.model_validate({"images": {"source": "parquet", "path": str(path)}, **small, **options})


@pytest.mark.slow
def test_its_output_is_a_verifier_that_states_the_error_on_people_whom_it_did_not_learn_from(tmp_path):
    manifest = run_train_verifier(job(table(tmp_path), tmp_path))
    stated = json.loads((tmp_path / "out" / "model" / "manifest.json").read_text(encoding="utf-8"))
    assert stated["error"] == manifest["facts"]["error"]
    other = stated["error"]["upper_color"]["pictures"]
    assert stated["fitted_on"]["pictures"] + other == PEOPLE.num_images
    assert other % 2 == 0  # both pictures of a person
    assert 0 < other < PEOPLE.num_images / 2
    assert set(Verifier.open(tmp_path / "out" / "model").read(list(PEOPLE.pictures(0, 1)))[0]) == set(stated["vocabulary"])


@pytest.mark.slow
def test_pictures_that_say_nothing_cannot_be_read_or_are_an_editors_are_counted(tmp_path):
    path = table(
        tmp_path,
        row3={"attributes": None},
        row4={"attributes": "no JSON"},
        row5={"image": b"no picture"},
        row6={"synthetic": True},
        row7={"attributes": json.dumps({"hat": "cap", "height": 180})},
    )
    counts = Counts()
    config = job(path, tmp_path)
    data, vocabulary, held_N = read_labelled(config, image_listing(config.images), counts)
    assert counts.unused == {"no_attributes": 2, "not_an_image": 1, "synthetic": 1}
    assert counts.read == counts.written + 4 == PEOPLE.num_images
    assert "height" not in vocabulary
    assert data.codes["upper_color"][3] == UNKNOWN  # of row 7, which says nothing of it
    assert vocabulary["hat"][data.codes["hat"][3]] == "cap"
    assert len(held_N) == len(data)


def test_a_table_that_says_nothing_and_one_with_too_few_people_are_refused(tmp_path):
    silent = table(tmp_path, **{f"row{n}": {"attributes": None} for n in range(PEOPLE.num_images)})
    with refused(DataError, str(silent), "attributes"):
        run_train_verifier(job(silent, tmp_path))
    one = tmp_path / "one.parquet"
    pq.write_table(PEOPLE.image_table(0, 2), one)
    with refused(DataError, str(one)):
        run_train_verifier(job(one, tmp_path))


@pytest.mark.parametrize("shift", [0, 2])
def test_pictures_move_by_whole_pixels_and_turn_around(shift):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), np.uint8)
    turned = 0
    for before, after in zip(pictures, moved(pictures, np.random.default_rng(1), flip=0.5, shift=shift), strict=True):
        found = []
        for mirrored in (False, True):
            upright = after[:, ::-1] if mirrored else after
            for down in range(-shift, shift + 1):
                for right in range(-shift, shift + 1):
                    rows = np.clip(np.arange(8) + down, 0, 7)
                    columns = np.clip(np.arange(6) + right, 0, 5)
                    if (upright == before[rows][:, columns]).all():
                        found.append(mirrored)
        assert found
        turned += found[0]
    assert 8 < turned < 32
