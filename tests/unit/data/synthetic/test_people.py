"""Synthetic people: the same everywhere, told apart by seed, shown as said, described as shown."""

import io
import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.body import HAIR_RGB, RGB
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.data.synthetic.people import SyntheticPeople, score_caption
from reid_ray.data.synthetic.scene import Scene
from reid_ray.data.synthetic.sentences import Annotator
from reid_ray.data.synthetic.traits import ATTRIBUTES, COLORS, VIEWS
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import read_table

SMALL = SyntheticConfig(identities=30, images_per_identity=4)


@pytest.fixture(scope="module")
def crowd():
    return SyntheticPeople(SyntheticConfig(identities=500, images_per_identity=1, seed=3))


@pytest.mark.slow
def test_a_slice_equals_the_same_rows_of_the_whole():
    people = SyntheticPeople(SMALL)
    whole_images, whole_captions = people.image_table(), people.caption_table()
    assert whole_images.schema == IMAGES
    assert whole_captions.schema == CAPTIONS
    for start, stop in ((0, 1), (17, 90), (119, 120), (5, 5)):
        alone = SyntheticPeople(SMALL)
        assert alone.image_table(start, stop).to_pylist() == whole_images.slice(start, stop - start).to_pylist()
        assert alone.caption_table(start, stop).to_pylist() == whole_captions.slice(2 * start, 2 * (stop - start)).to_pylist()


def test_the_pictures_of_an_older_version_are_drawn_again_bit_by_bit():
    folder = Path(__file__).resolve().parents[3] / "golden" / "96cb249" / "people"
    config = json.loads((folder / "manifest.json").read_text())["config"]["people"]
    older = read_table(folder / "images", IMAGES)["image"].to_pylist()
    todays = SyntheticPeople(SyntheticConfig(**config)).image_table()["image"].to_pylist()
    for one, other in zip(older, todays, strict=True):
        assert (np.asarray(Image.open(io.BytesIO(one))) == np.asarray(Image.open(io.BytesIO(other)))).all()


@pytest.mark.slow
def test_ids_are_unique_and_rows_agree_with_each_other():
    people = SyntheticPeople(SMALL)
    images, captions = people.image_table().to_pylist(), people.caption_table().to_pylist()
    assert len({row["image_id"] for row in images}) == len(images) == people.num_images == 120
    assert len({row["caption_id"] for row in captions}) == len(captions) == 240
    for n, row in enumerate(images):
        assert row["person_id"] == n // 4
        assert row["image_id"] == f"synthetic/{n // 4:07d}_c{row['camera_id']}_{n % 4:02d}.jpg"
        assert Image.open(io.BytesIO(row["image"])).size == (row["width"], row["height"]) == (64, 128)
        for caption in captions[2 * n : 2 * n + 2]:
            assert [caption[key] for key in ("image_id", "person_id", "camera_id", "split")] == [
                row[key] for key in ("image_id", "person_id", "camera_id", "split")
            ]
        assert {r["camera_id"] for r in images[n // 4 * 4 : n // 4 * 4 + 4]} == {1, 2, 3, 4}


def test_another_seed_gives_other_people_and_other_streets():
    one, other = SyntheticPeople(SMALL), SyntheticPeople(SMALL.model_copy(update={"seed": 1}))
    same = sum(a == b for a, b in zip(one.attributes(), other.attributes(), strict=True))
    assert same <= 2
    assert np.abs(one.pictures(0, 8).astype(int) - other.pictures(0, 8)).mean() > 20


def test_splits_are_exact_in_number_and_share_no_identity():
    config = SyntheticConfig(identities=203, images_per_identity=3, val_share=0.1, test_share=0.25)
    rows = SyntheticPeople(config).caption_table().select(["person_id", "split"]).to_pylist()
    people = {split: {row["person_id"] for row in rows if row["split"] == split} for split in ("train", "val", "test")}
    assert {split: len(ids) for split, ids in people.items()} == {"train": 132, "val": 20, "test": 51}
    assert len(set.union(*people.values())) == 203


def test_a_range_beyond_the_set_is_refused():
    with pytest.raises(DataError, match="100 to 121"):
        SyntheticPeople(SMALL).image_table(100, 121)


def test_identities_seldom_look_alike():
    assert SyntheticPeople(SyntheticConfig(identities=2000)).shared_identities() == 0
    attributes = SyntheticPeople(SyntheticConfig(identities=2000, images_per_identity=1)).attributes()
    assert len({tuple(row.values()) for row in attributes}) == 2000  # the count, made another way


def test_every_value_occurs_and_what_is_absent_has_no_colour(crowd):
    truth = crowd.attributes()
    for name, values in ATTRIBUTES.items():
        assert {row[name] for row in truth} == set(values)
    for row in truth:
        assert list(row) == list(ATTRIBUTES)
        assert (row["bag"] == "none") == (row["bag_color"] == "none")
        assert (row["hat"] == "none") == (row["hat_color"] == "none")


@pytest.mark.slow
def test_captions_say_only_what_is_true(crowd):
    said = missed = 0
    for texts, truth, hidden in zip(crowd.captions(), crowd.attributes(), crowd.hidden(), strict=True):
        for text in texts:
            score = score_caption(text, truth, hidden)
            assert not score.wrong, text
            said += score.said
            missed += len(score.missed)
            assert not ("shoes" in hidden and any(claim.attribute == "shoes_color" for claim in score.claims)), text
    assert 7 < said / 1000 < 11
    assert missed > 500  # some name fewer attributes
    words = [text for texts in crowd.captions() for text in texts]
    assert len(set(words)) > 980
    assert len({" ".join(text.split()[:3]) for text in words}) > 60


@pytest.mark.slow
def test_what_annotators_name_is_what_is_read():
    """The parser is told nothing of what was meant: attribute by attribute, over every style and synonym."""
    rng = random.Random(4)
    for truth in SyntheticPeople(SMALL.model_copy(update={"identities": 500})).attributes():
        text, named = Annotator(rng).write_and_name(truth)
        read = {(claim.attribute, *claim.accepts) for claim in score_caption(text, truth).claims}
        assert read == {(name, truth[name]) for name in named}, text


def test_a_changed_attribute_is_caught(crowd):
    rng = np.random.default_rng(0)
    for texts, truth in zip(crowd.captions(0, 200), crowd.attributes(0, 200), strict=True):
        claims = score_caption(texts[0], truth).claims
        name = claims[rng.integers(len(claims))].attribute
        accepted = {value for claim in claims if claim.attribute == name for value in claim.accepts}
        other = next(value for value in ATTRIBUTES[name] if value not in accepted)
        score = score_caption(texts[0], {**truth, name: other})
        assert {claim.attribute for claim in score.wrong} == {name}, (texts[0], name, other)


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        (
            "A lady in gray slacks and a red plaid tee.",
            "gender:woman lower:trousers lower_color:grey upper:t-shirt upper_color:red upper_pattern:checked",
        ),
        ("His shoes are white, and he has hair that is long and blonde.", "gender:man shoes_color:white hair:long hair_color:blond"),
        ("Man without a hat, carrying a navy blue rucksack.", "gender:man hat:none bag:backpack bag_color:blue"),
        (
            "Woman with brown hair tied in a bun and a long black coat.",
            "gender:woman hair:bun hair_color:brown upper:coat upper_color:black",
        ),
        (
            "Black boots, blue jeans with a white shirt.",
            "shoes:boots shoes_color:black lower:jeans lower_color:blue upper:shirt upper_color:white",
        ),
        ("The pedestrian walks by.", ""),
    ],
)
def test_sentences_are_read_as_a_person_would(text, claims):
    truth = dict.fromkeys(ATTRIBUTES, "?")
    read = {f"{claim.attribute}:{value}" for claim in score_caption(text, truth).claims for value in claim.accepts}
    assert read == set(claims.split())


@pytest.mark.slow
def test_a_pronoun_is_followed_by_its_verb():
    """Also where the subject is two words, as a female pedestrian or a young man is."""
    people = SyntheticPeople(SMALL.model_copy(update={"identities": 400}))
    followers = Counter(re.findall(r"\b(?:He|She) (\w+)", " ".join(people.caption_table()["text"].to_pylist())))
    assert set(followers) == {"has", "carries", "is", "wears"}
    assert min(followers.values()) > 10


def test_things_nobody_wears_count_as_wrong():
    truth = SyntheticPeople(SMALL).attributes(0, 1)[0]
    score = score_caption("A person with an umbrella, sunglasses and a scarf", truth)
    assert (score.right, score.said) == (0, 3)


@pytest.mark.slow
def test_the_picture_shows_the_colours_that_are_said(crowd):
    """The middle of the chest, the hip and the crown of the head, seen under a camera's light, are nearest to the named colour."""
    pictures, shots = crowd.pictures().astype(float), crowd.shots()
    hits, tries = dict.fromkeys(("upper", "lower", "hair"), 0), dict.fromkeys(("upper", "lower", "hair"), 0)
    scene = Scene(crowd.config)
    cameras, frame = scene._cameras, scene._frame(shots)
    for n, (pixels, truth, camera, view, occluder) in enumerate(
        zip(pictures, crowd.attributes(), shots.camera_N, shots.view_N, shots.occluder_N, strict=True)
    ):
        if occluder or VIEWS[view] != "back" or truth["upper_pattern"] != "plain":
            continue
        x = int(frame.left_N[n] / 2)
        for slot, (top, bottom, half) in {"upper": (45, 51, 6), "lower": (71, 77, 7), "hair": (9, 14, 3)}.items():
            low, high = (int((frame.top_N[n] + frame.scale_y_N[n] * row) / 2) for row in (top, bottom))  # drawn at twice the size
            patch = pixels[low:high, x - half : x + half]
            covered = {"upper": truth["bag"] in ("backpack", "shoulder bag") or truth["hair"] == "long", "hair": truth["hat"] != "none"}
            if covered.get(slot) or (slot == "lower" and truth["upper"] == "coat"):
                continue
            palette = HAIR_RGB if slot == "hair" else {name: RGB[name] for name in COLORS}
            haze = cameras.haze_C[camera]
            color = (np.median(patch.reshape(-1, 3), axis=0) - 150 * haze) / (1 - haze) / cameras.cast_C3[camera]
            near = min(palette, key=lambda name: np.abs(np.array(palette[name]) - color).sum())
            hits[slot] += near == truth[f"{slot}_color"]
            tries[slot] += 1
    assert min(tries.values()) >= 15, tries
    for slot, count in hits.items():
        assert count / tries[slot] > 0.8, (slot, count, tries[slot])  # chance is 0.1 for clothes; shade and light mislead some


@pytest.mark.slow
def test_cameras_differ_and_pictures_of_one_identity_are_never_alike():
    people = SyntheticPeople(SyntheticConfig(identities=150, images_per_identity=4))
    pictures, camera_N = people.pictures().astype(float), people.shots().camera_N
    brightness_C = [pictures[camera_N == camera].mean() for camera in range(4)]
    assert max(brightness_C) - min(brightness_C) > 10
    for person in range(150):
        shots = pictures[4 * person : 4 * person + 4]
        assert min(np.abs(shots[i] - shots[j]).mean() for i in range(4) for j in range(i)) > 8
    assert len(set(people.shots().view_N)) == 3
    assert 0.03 < (people.shots().occluder_N > 0).mean() < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("size", [(33, 17), (256, 128), (384, 192)])
def test_any_size_shows_the_same_people(size):
    height, width = size
    people = SyntheticPeople(SMALL.model_copy(update={"height": height, "width": width}))
    pictures = people.pictures(0, 4)
    assert pictures.shape == (4, height, width, 3)
    assert people.captions(0, 4) == SyntheticPeople(SMALL).captions(0, 4)


@pytest.mark.slow
def test_the_job_writes_what_it_counts(tmp_path):
    config = SynthesizeJob.model_validate({"people": SMALL, "output": {"path": str(tmp_path / "people")}, "rows_per_part": 50})
    manifest = run_synthesize(config)
    assert manifest["counts"] == {"read": 120, "written": 120, "failed": {}, "left_out": {}}
    assert manifest["facts"] == {"identities": 30, "identities_like_another": 0, "captions": 240}
    assert read_table(tmp_path / "people" / "images", IMAGES).to_pylist() == SyntheticPeople(SMALL).image_table().to_pylist()
    assert read_table(tmp_path / "people" / "captions", CAPTIONS).num_rows == 240
    with refused(DataError, "output.if_exists"):
        run_synthesize(config)
