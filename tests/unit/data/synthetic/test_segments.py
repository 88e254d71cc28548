"""Label maps say where each thing shows, and a redrawn shot differs there and nowhere else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from refusals import refused

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.bit_masks import decode_mask
from reid_ray.data.synthetic.body import HAIR_RGB, RGB
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS
from reid_ray.data.synthetic.slot_maps import LABELS
from reid_ray.data.synthetic.traits import ATTRIBUTES
from reid_ray.errors import DataError
from reid_ray.records import IMAGES, SEGMENTS
from reid_ray.storage import read_table

CROWD = SyntheticConfig(identities=60, images_per_identity=2, seed=8)


@pytest.fixture(scope="module")
def crowd():
    return SyntheticPeople(CROWD)


def _another(attribute, value, rng):
    return str(rng.choice([other for other in ATTRIBUTES[attribute] if other not in (value, "none")]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "attribute", ["hair", "hair_color", "upper", "upper_color", "upper_pattern", "lower", "lower_color", "shoes_color"]
)
def test_the_same_shot_in_other_clothes_differs_inside_the_mask_alone(crowd, attribute):
    rng = np.random.default_rng(0)
    changes = [{attribute: _another(attribute, truth[attribute], rng)} for truth in crowd.attributes(0, 64)]
    outside, inside = [], []
    for index, redrawn in enumerate(crowd.counterfactuals(range(64), changes)):
        assert redrawn.new == {**redrawn.old, **changes[index]} != redrawn.old == crowd.attributes(index, index + 1)[0]
        off_HW = np.abs(redrawn.after.astype(int) - redrawn.before).mean(axis=-1)
        outside.append(off_HW[~redrawn.mask])
        inside.append(off_HW[redrawn.mask])
    assert np.concatenate(outside).mean() < 0.5
    assert np.concatenate(inside).mean() > 20
    assert (redrawn.before == crowd.pictures(63, 64)[0]).all()


def test_one_redrawn_alone_is_the_one_redrawn_among_others_and_nothing_changed_is_the_picture(crowd):
    many = list(crowd.counterfactuals([7, 110, 7], [{"upper_color": "red"}, {"shoes": "boots"}, {}]))
    alone = crowd.counterfactual(110, {"shoes": "boots"})
    assert (many[1].after == alone.after).all()
    assert (many[1].mask == alone.mask).all()
    assert (many[2].after == many[2].before).all()
    assert not many[2].mask.any()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gender": "man"}, "'gender' cannot be changed"),
        ({"upper_color": "mauve"}, "upper_color cannot be 'mauve'"),
        ({"bag": "none", "bag_color": "red"}, "bag would be 'none' with bag_color 'red'"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(crowd, changes, named):
    with refused(DataError, named):
        crowd.counterfactual(0, changes)


def test_an_image_that_there_is_not_is_refused(crowd):
    with refused(DataError, "there are 120"):
        crowd.counterfactual(120, {"upper_color": "red"})


@pytest.mark.slow
def test_masks_lie_on_pixels_of_the_colour_that_the_truth_names():
    """Compared with the palette, through light and grain of many cameras: each plain garment's median is nearest its own colour."""
    people = SyntheticPeople(CROWD.model_copy(update={"cameras": 8}))
    masks, pictures = people.masks(), people.pictures()
    for slot, palette, least in (("upper", RGB, 0.6), ("lower", RGB, 0.6), ("hair", HAIR_RGB, 0.6)):
        hits = []
        for truth, mask_HW, picture in zip(people.attributes(), masks[:, list(SLOTS).index(slot)], pictures, strict=True):
            if mask_HW.sum() > 30 and not (slot == "upper" and truth["upper_pattern"] != "plain"):
                median = np.median(picture[mask_HW], axis=0)
                hits.append(min(palette, key=lambda name, median=median: np.abs(median - palette[name]).sum()) == truth[f"{slot}_color"])
        assert len(hits) > 60
        assert np.mean(hits) > least, slot


@pytest.mark.slow
def test_label_maps_are_the_masks_each_pixel_to_one_slot(crowd):
    masks, labels = crowd.masks(0, 60), crowd.label_maps(0, 60)
    assert ((labels > 0) == masks.any(axis=1)).all()
    for code, slot in enumerate(LABELS[1:]):
        assert not ((labels == code + 1) & ~masks[:, list(SLOTS).index(slot)]).any()
        alone = masks[:, code] & (masks.sum(axis=1) == 1)
        assert (labels[alone] == code + 1).all()


@pytest.mark.slow
def test_the_job_writes_a_row_for_each_image_and_slot_that_is_worn_hidden_or_neither(tmp_path):
    job = {
        "people": CROWD.model_dump(),
        "captions": False,
        "segments": True,
        "rows_per_part": 70,
        "output": {"path": str(tmp_path / "out")},
    }
    manifest = run_synthesize(SynthesizeJob.model_validate(job))
    people, images = SyntheticPeople(CROWD), read_table(tmp_path / "out" / "images", IMAGES).to_pylist()
    rows = read_table(tmp_path / "out" / "segments", SEGMENTS).to_pylist()
    assert manifest["facts"]["segments"] == len(rows) == len(images) * len(SLOTS)
    masks = people.masks()
    seen = set()
    for place, row in enumerate(rows):
        image, slot = images[place // len(SLOTS)], list(SLOTS)[place % len(SLOTS)]
        assert [row[name] for name in ("image_id", "image_sha256", "person_id", "split")] == [
            image[name] for name in ("image_id", "image_sha256", "person_id", "split")
        ]
        mask = masks[place // len(SLOTS), place % len(SLOTS)]
        worn = json.loads(image["attributes"])[slot] != "none"
        seen.add(row["reason"])
        if row["status"] == "ok":
            assert (decode_mask(row["mask"], width=64, height=128) == mask).all()
            left, top, right, bottom = row["box"]
            assert mask[top:bottom, left:right].sum() == mask.sum() == round(row["area"] * 64 * 128) > 0
            assert mask[top].any() and mask[bottom - 1].any() and mask[:, left].any() and mask[:, right - 1].any()  # noqa: PT018
        else:
            assert not mask.any()
            assert (row["reason"] == "not_worn") is not worn
    assert seen == {None, "not_worn", "out_of_sight"}
    assert (people.segment_table(3, 50).to_pylist()) == rows[3 * len(SLOTS) : 50 * len(SLOTS)]
