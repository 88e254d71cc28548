"""Substitution by rule: what a caption says of a thing changes, and nothing else does."""

import random

import pytest

from reid_ray.attributes.lexicon import token_places, tokens_of
from reid_ray.attributes.parser import read_attributes
from reid_ray.attributes.substitution import CannotSubstituteError, substitute
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople


@pytest.mark.parametrize(
    ("text", "noun", "looks", "expected"),
    [
        ("A man in a red shirt.", "shirt", {"color": "blue"}, "A man in a blue shirt."),
        ("A man in a red shirt.", "shirt", {"color": "orange"}, "A man in an orange shirt."),
        ("A man in a shirt.", "shirt", {"color": "blue", "pattern": "checked"}, "A man in a blue checked shirt."),
        ("A man in a dark red striped shirt.", "shirt", {"color": "blue"}, "A man in a blue shirt."),
        ("A man in a red and white striped shirt.", "shirt", {"color": "blue", "pattern": "plain"}, "A man in a blue shirt."),
        ("A man in an orange striped shirt.", "shirt", {"color": "blue", "pattern": "checked"}, "A man in a blue checked shirt."),
        ("Her hair is long and black.", "hair", {"color": "blond"}, "Her hair is long and blond."),
        ("A woman with short, black hair.", "hair", {"color": "red"}, "A woman with short, red hair."),
        ("Red shoes and a bag.", "shoes", {"color": "green"}, "Green shoes and a bag."),
        ("She has jeans that are blue.", "jeans", {"color": "grey"}, "She has jeans that are grey."),
        ("A coat with stripes and pink boots.", "coat", {"color": "red"}, "A red coat and pink boots."),
        ("A man in a red shirt.", "shirt", {}, "A man in a shirt."),
        ("A man in an orange shirt.", "shirt", {}, "A man in a shirt."),
        ("She has jeans that are blue.", "jeans", {}, "She has jeans."),
        ("Black, short hair.", "hair", {}, "Short hair."),
    ],
)
def test_a_noun_gets_other_looks(text, noun, looks, expected):
    result = substitute(text, {text.index(noun): looks})
    assert result.text == expected
    ((start, stop),) = result.nouns
    assert result.text[start:stop].lower() == noun


@pytest.mark.parametrize(
    "text",
    ["A red coat. The coat is red.", "All in red, the woman wears a red coat.", "The man walks."],
)
def test_a_caption_that_would_still_say_something_else_is_refused(text):
    with pytest.raises(CannotSubstituteError):
        substitute(text, {text.find("coat"): {"color": "blue"}})


@pytest.mark.slow
def test_in_any_caption_of_a_person_only_what_was_changed_reads_otherwise():
    texts = SyntheticPeople(SyntheticConfig(identities=60, images_per_identity=2)).caption_table(0, 120)["text"].to_pylist()
    rng, changed, refused = random.Random(0), 0, 0
    for text in texts:
        things = {thing.slot: thing for thing in read_attributes(text).things}
        slot = rng.choice(sorted(things))
        place = next(token for token in token_places(text) if token.word == things[slot].word)
        color = rng.choice(["red", "blue", "green", "black"])
        try:
            result = substitute(text, {place.start: {"color": color}})
        except CannotSubstituteError:
            refused += 1
            continue
        changed += 1
        after = {thing.slot: thing for thing in read_attributes(result.text).things}
        assert after.keys() == things.keys()
        assert after[slot].said["color"] == [frozenset({color})]
        assert {name: thing for name, thing in after.items() if name != slot} == {n: t for n, t in things.items() if n != slot}
    assert changed > 15 * refused


def test_a_token_is_where_its_characters_are():
    text = "The man’s  navy-blue\n t-shirt — İ off white, and a pair of blue jeans."
    for word, start, stop in token_places(text):
        assert tokens_of(text[start:stop].replace("—", ",")) == [word]
