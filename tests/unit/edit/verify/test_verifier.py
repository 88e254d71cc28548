"""The verifier that ships, on people whom it has not seen: drawings of what was wanted stand, others do not, and it knows its own error."""

from __future__ import annotations

import json

import numpy as np
import pytest
from refusals import refused

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.edit.verify.attribute_reader import AttributeReader
from reid_ray.edit.verify.config import ReaderConfig, VerifyLimits
from reid_ray.edit.verify.picture_measures import kernel_distance
from reid_ray.edit.verify.verifier import _SHIPPED, BUILTIN, EditedPicture, Verifier, load_reader, save_reader, surely_lost
from reid_ray.errors import DataError

PEOPLE = SyntheticPeople(SyntheticConfig(identities=120, images_per_identity=1, height=64, width=32, seed=77_000_000))


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier.open(BUILTIN)


@pytest.fixture(scope="module")
def drawings():
    """Each of the people in an upper garment of another colour."""
    truth = PEOPLE.attributes()
    other = {"red": "blue", "blue": "yellow"}
    return list(PEOPLE.counterfactuals(range(len(truth)), [{"upper_color": other.get(each["upper_color"], "red")} for each in truth]))


def edit_of(drawing, *, edited=None, wanted=None):
    wanted = {"upper_color": drawing.new["upper_color"]} if wanted is None else wanted
    return EditedPicture(drawing.before, drawing.after if edited is None else edited, {"upper": drawing.mask}, {"upper": wanted})


@pytest.mark.slow
def test_most_drawings_of_what_was_wanted_stand_and_hardly_any_of_something_else(verifier, drawings):
    shares = {
        "drawn": np.mean([each.stands for each in verifier.check_all([edit_of(each) for each in drawings])]),
        "untouched": np.mean([each.stands for each in verifier.check_all([edit_of(each, edited=each.before) for each in drawings])]),
        "another colour": np.mean(
            [
                each.stands
                for each in verifier.check_all([edit_of(each, wanted={"upper_color": each.old["upper_color"]}) for each in drawings])
            ]
        ),
    }
    assert shares["drawn"] > 0.75
    assert shares["untouched"] == 0
    assert shares["another colour"] < 0.1


@pytest.mark.slow
def test_a_change_outside_the_mask_is_refused_before_anything_is_read(verifier, drawings):
    drawing = drawings[0]
    spoilt = drawing.after.copy()
    spoilt[~drawing.mask] = 255 - spoilt[~drawing.mask]
    verdict = verifier.check(drawing.before, spoilt, {"upper": drawing.mask}, {"upper": {"upper_color": drawing.new["upper_color"]}})
    assert verdict.reason.startswith("changed_outside: ")
    assert verdict.change_outside > 1
    assert verdict.psnr_outside < 30


@pytest.mark.slow
def test_what_else_was_changed_is_named(verifier, drawings):
    """Trousers of another colour under a mask that speaks of the upper garment alone."""
    both = list(
        PEOPLE.counterfactuals(
            range(len(drawings)),
            [
                {"upper_color": each.new["upper_color"], "lower_color": "red" if each.old["lower_color"] != "red" else "blue"}
                for each in drawings
            ],
        )
    )
    verdicts = verifier.check_all([EditedPicture(each.before, each.after, {"upper": each.mask}, {"upper": {}}) for each in both])
    assert np.mean(["lower_color" in each.lost for each in verdicts]) > 0.6
    plain = verifier.check_all([edit_of(each) for each in drawings])
    assert np.mean(["lower_color" in each.lost for each in plain]) < 0.05


def test_a_verdict_depends_on_its_own_edit_alone(verifier, drawings):
    together = verifier.check_all([edit_of(each) for each in drawings[:9]])
    for number in (0, 4, 8):
        alone = verifier.check_all([edit_of(drawings[number])])[0]
        assert (alone.reason, alone.read, alone.missed, alone.lost) == (
            together[number].reason,
            together[number].read,
            together[number].missed,
            together[number].lost,
        )
    assert verifier.check_all([]) == []


def test_verdicts_do_not_depend_on_how_many_are_read_at_a_time(verifier, drawings, monkeypatch):
    edits = [edit_of(each) for each in drawings[:11]]
    whole = verifier.check_all(edits)
    monkeypatch.setattr("reid_ray.edit.verify.verifier._BATCH", 4)
    parts = verifier.check_all(edits)
    assert [(each.reason, each.read, each.missed, each.lost) for each in parts] == [
        (each.reason, each.read, each.missed, each.lost) for each in whole
    ]
    np.testing.assert_allclose([each.head_similarity for each in parts], [each.head_similarity for each in whole], atol=1e-5)


def test_values_that_it_cannot_tell_apart_are_not_judged(verifier, drawings):
    verdict = verifier.check_all([edit_of(drawings[0], wanted={"upper_color": "mauve", "upper_length": "long"})])[0]
    assert verdict.hit


@pytest.mark.slow
def test_the_error_that_ships_is_the_one_on_other_people(verifier):
    stated = json.loads((_SHIPPED / "manifest.json").read_text(encoding="utf-8"))
    assert stated["fitted_on"]["synthetic"]["seed"] != PEOPLE.config.seed
    truth = PEOPLE.attributes()
    read = verifier.read(list(PEOPLE.pictures()))
    for name in ("upper_color", "lower_color", "upper_pattern", "gender"):
        right = np.mean([one[name] == other[name] for one, other in zip(read, truth, strict=True)])
        assert abs(right - stated["error"][name]["right"]) < 0.12  # three standard errors of 120 people
        assert stated["error"][name]["right"] > stated["error"][name]["by_chance"] + 0.2


@pytest.mark.slow
def test_pictures_of_any_size_are_read(verifier):
    large = SyntheticPeople(PEOPLE.config.model_copy(update={"height": 128, "width": 64})).pictures(0, 60)
    truth = PEOPLE.attributes(0, 60)
    right = np.mean([one["upper_color"] == other["upper_color"] for one, other in zip(verifier.read(list(large)), truth, strict=True)])
    assert right > 0.7


@pytest.mark.slow
def test_features_tell_photographs_from_what_is_none(verifier):
    features = verifier.features(list(PEOPLE.pictures()))
    np.testing.assert_allclose((features**2).mean(axis=1), 1, rtol=1e-4)
    noise = verifier.features(list(np.random.default_rng(0).integers(0, 256, (40, 64, 32, 3), np.uint8)))
    assert kernel_distance(features[:60], noise) > 10 * abs(kernel_distance(features[:60], features[60:]))


def test_lost_means_read_otherwise_and_surely_both_times():
    assert surely_lost(np.array([0.9, 0.1]), np.array([0.2, 0.8]), sure=0.5)
    assert not surely_lost(np.array([0.9, 0.1]), np.array([0.6, 0.4]), sure=0.5)
    assert not surely_lost(np.array([0.4, 0.35, 0.25]), np.array([0.1, 0.8, 0.1]), sure=0.5)
    assert not surely_lost(np.array([0.8, 0.1, 0.1]), np.array([0.3, 0.4, 0.3]), sure=0.5)


def test_a_folder_gives_the_same_readings_again_and_one_that_is_none_is_refused(tmp_path, verifier):
    shape = ReaderConfig(hidden=16)
    reader = AttributeReader({"upper_color": ["blue", "red"], "hat": ["cap", "none"]}, shape).eval()
    save_reader(reader, tmp_path / "made", {"error": {}})
    pictures = list(PEOPLE.pictures(0, 4))
    found = [
        Verifier(each, VerifyLimits(), revision="").probabilities(pictures)["upper_color"]
        for each in (reader, load_reader(tmp_path / "made"))
    ]
    np.testing.assert_allclose(*found, atol=0.01)  # float16 on disk
    with refused(DataError, "nowhere", "train_verifier"):
        Verifier.open(tmp_path / "nowhere")
    (tmp_path / "made" / "verifier.safetensors").write_bytes(b"none")
    with refused(DataError, "made", "train_verifier"):
        Verifier.open(tmp_path / "made")
