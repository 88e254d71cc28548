"""The captions of the ablation benchmark: what it counts as a wrong word is wrong, and everything wrong is counted."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ablation.captions import exchanged, judged, write_people
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.truth_score import score_caption
from reid_ray.records import CAPTIONS
from reid_ray.storage import read_table

PEOPLE = SyntheticPeople(SyntheticConfig(identities=150, images_per_identity=1, height=32, width=16, val_share=0, test_share=0))


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    found = {}
    for share in (0.0, 0.25):
        found[share] = write_people(folder / str(share), PEOPLE, wrong_share=share, seed=3)
        assert read_table(folder / str(share) / "captions", CAPTIONS)["text"].to_pylist() == [caption.text for caption in found[share]]
    return found


@pytest.mark.slow
def test_a_quarter_of_the_attributes_makes_a_quarter_of_their_words_wrong(captions):
    assert not any(caption.wrong_W.any() for caption in captions[0.0])
    attribute, wrong = (np.concatenate([getattr(c, name) for c in captions[0.25]]) for name in ("attribute_W", "wrong_W"))
    assert wrong[attribute].mean() == pytest.approx(0.25, abs=0.03)
    assert not wrong[~attribute].any()


@pytest.mark.slow
def test_the_parser_of_attributes_finds_wrong_claims_in_just_the_captions_with_wrong_words(captions):
    truth = [attributes for attributes in PEOPLE.attributes() for _ in range(2)]
    agree = [bool(score_caption(c.text, person).wrong) == bool(c.wrong_W.any()) for c, person in zip(captions[0.25], truth, strict=True)]
    assert np.mean(agree) > 0.97  # shoes without a kind are no claim to it
    assert not any(score_caption(c.text, person).wrong for c, person in zip(captions[0.0], truth, strict=True))


def test_words_are_compared_in_place():
    caption = judged("The man has short red hair. He carries a blue backpack.", "The man has short black hair. He carries a blue handbag.")
    assert [word for word, wrong in zip(caption.text.split(), caption.wrong_W, strict=True) if wrong] == ["red", "backpack."]


def test_what_a_caption_does_not_say_is_never_exchanged():
    import random

    person = {**PEOPLE.attributes()[0], "bag": "none", "bag_color": "none", "upper_pattern": "plain"}
    changed = exchanged(person, 1.0, random.Random(0))
    assert {name for name in person if changed[name] == person[name]} == {"bag", "bag_color", "upper_pattern"} | {
        name for name in ("hat", "hat_color") if person[name] == "none"
    }
