"""Nouns are found where they stand, whatever stands round them."""

import random

import pytest

from reid_ray.attributes.mentions import mentions_of, things_named
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.data.synthetic.sentences import SLOTS, Annotator


@pytest.mark.parametrize(
    ("text", "nouns"),
    [
        ("A woman in a navy-blue T-shirt and denim  jeans.", ["upper T-shirt", "lower denim  jeans"]),
        ("HIS SHOES are white; no hat, without a bag", ["shoes SHOES", "-hat hat", "-bag bag"]),
        ("The man’s short hair, a hooded\nsweatshirt", ["hair hair", "upper hooded\nsweatshirt"]),
        ("Nothing of note.", []),
    ],
)
def test_a_noun_is_cut_out_of_the_text_as_it_is_spelled(text, nouns):
    assert [f"{'-' * each.denied}{each.slot} {text[each.start : each.stop]}" for each in mentions_of(text)] == nouns


@pytest.mark.parametrize(
    ("text", "named", "several"),
    [
        ("A man in a red coat. The coat is long.", {"upper": "coat"}, set()),
        ("A man in a black jacket over a white shirt, blue jeans", {"lower": "jeans"}, {"upper"}),
        ("A man with long hair in a bun, no bag", {"hair": "hair"}, set()),
    ],
)
def test_a_thing_named_twice_is_one_and_two_things_of_a_slot_are_several(text, named, several):
    found = things_named(text)
    assert {slot: text[noun.start : noun.stop] for slot, noun in found.nouns.items()} == named
    assert found.several == several


def test_what_annotators_speak_of_is_found_in_every_style():
    """The annotator says itself which attributes it named; each is one of a slot's."""
    rng = random.Random(2)
    for truth in SyntheticPeople(SyntheticConfig(identities=300, images_per_identity=1)).attributes():
        text, attributes = Annotator(rng).write_and_name(truth)
        found = things_named(text)
        assert set(found.nouns) >= {slot for slot, own in SLOTS.items() if attributes & set(own)}, text
        assert all(text[noun.start : noun.stop].replace("-", " ").replace(" ", "").isalpha() for noun in found.nouns.values()), text
        assert not found.several, text
