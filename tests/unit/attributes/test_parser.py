"""Attribute reading: what belongs to which noun."""

import pytest

from reid_ray.attributes.lexicon import MODIFIERS, NOUNS, tokens_of
from reid_ray.attributes.parser import phrase_spans, read_attributes


def said(text):
    """{(slot, kind word): {facet: [values]}} for assertions, denied things prefixed by no."""
    return {
        (("no " if thing.denied else "") + thing.slot, thing.word): {
            facet: ["/".join(sorted(values)) for values in words] for facet, words in thing.said.items()
        }
        for thing in read_attributes(text).things
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a black backpack", {("bag", "backpack"): {"color": ["black"]}}),
        ("jeans that are blue", {("lower", "jeans"): {"color": ["blue"]}}),
        ("blonde hair", {("hair", "hair"): {"color": ["blond/yellow"]}}),
        ("a short-haired man", {("hair", "haired"): {"length": ["short"]}}),
        ("a red and white striped shirt", {("upper", "shirt"): {"pattern": ["striped"], "color": ["white", "red"]}}),
        ("a black leather jacket", {("upper", "jacket"): {"color": ["black"]}}),
        ("His shoes are white, blue jeans.", {("shoes", "shoes"): {"color": ["white"]}, ("lower", "jeans"): {"color": ["blue"]}}),
        ("a shirt in white and blue jeans", {("upper", "shirt"): {"color": ["white"]}, ("lower", "jeans"): {"color": ["blue"]}}),
        (
            "The shirt is white and the pants are black.",
            {("upper", "shirt"): {"color": ["white"]}, ("lower", "pants"): {"color": ["black"]}},
        ),
        (
            "a coat with stripes and pink boots",
            {("upper", "coat"): {"pattern": ["striped"]}, ("shoes", "boots"): {"color": ["pink"]}},
        ),
        ("with short, black hair in a ponytail", {("hair", "hair"): {"color": ["black"], "length": ["short"], "tied": ["ponytail"]}}),
        ("Her hair is long and black", {("hair", "hair"): {"length": ["long"], "color": ["black"]}}),
        ("a brown bun, purple skirt", {("hair", "bun"): {"color": ["brown"], "tied": ["bun"]}, ("lower", "skirt"): {"color": ["purple"]}}),
        ("She is not wearing a hat and is without a bag.", {("no hat", "hat"): {}, ("no bag", "bag"): {}}),
        ("a white shirt under a black jacket", {("upper", "shirt"): {"color": ["white"]}, ("upper", "jacket"): {"color": ["black"]}}),
        ("a pair of dark-blue running shoes", {("shoes", "running_shoes"): {"color": ["blue"], "shade": ["dark"]}}),
        ("a red coat. The coat is long", {("upper", "coat"): {"color": ["red"], "length": ["long"]}}),
        ("This person walks along a street.", {}),
    ],
)
def test_a_modifier_binds_to_its_noun(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "gender", "age"),
    [
        ("A young woman in a coat.", {"woman"}, [{"young"}]),
        ("The person holds his phone", {"man"}, []),
        ("A pedestrian with men's shoes.", {"man"}, []),
        ("Somebody in a coat", set(), []),
    ],
)
def test_people_words(text, gender, age):
    reading = read_attributes(text)
    assert reading.gender == gender
    assert list(reading.age) == age


def test_colours_that_no_noun_claims_are_loose():
    assert read_attributes("dressed all in black").loose_colors == (frozenset({"black"}),)
    assert read_attributes("a black coat").loose_colors == ()


def test_phrase_spans_cut_whole_noun_phrases():
    tokens = tokens_of("The man wears a pair of blue jeans and a black leather jacket with stripes.")
    spans = phrase_spans(tokens)
    assert [(" ".join(tokens[s.start : s.stop]), s.slot) for s in spans] == [
        ("a pair of blue jeans", "lower"),
        ("a black leather jacket with stripes", "upper"),
    ]


def test_no_word_is_both_noun_and_modifier():
    assert not set(NOUNS) & set(MODIFIERS)


def test_any_text_can_be_read():
    for text in ("", "...", "and and and", "a " * 50, "red " * 50, "hat " * 50, "no no no hat", "é漢字 🙂", "of of of shoes"):
        read_attributes(text)


def test_the_camera_that_took_the_picture_is_not_worn():
    assert [thing.slot for thing in read_attributes("A man in a red shirt faces the camera.").things] == ["upper"]
    assert [thing.slot for thing in read_attributes("The camera caught a man who holds a black camera.").things] == ["camera"]
