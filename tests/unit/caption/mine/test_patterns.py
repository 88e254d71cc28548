"""Patterns out of captions: slots stand for phrases, nothing of the person is left, bad templates are refused by reason."""

import random
import re
from pathlib import Path

import pytest

from reid_ray.caption.mine.patterns import Pattern, check_template, distinct, extract_pattern, load_templates, mine_patterns, vary
from reid_ray.caption.prompts import SLOT_PATTERN, TEMPLATES
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople
from reid_ray.errors import DataError

P, C, F, H, A, B = (
    "[person/woman/man]",
    "[clothing description]",
    "[footwear description]",
    "[hair description]",
    "[accessory description]",
    "[belongings description]",
)


@pytest.mark.parametrize(
    ("caption", "pattern"),
    [
        (
            "A young woman with long blonde hair wearing a red striped shirt and blue jeans, carrying a black leather backpack.",
            f"A {P} with {H} wearing {C}, carrying {B}.",
        ),
        ("The man is wearing a coat, white shoes and grey shorts. He has short hair.", f"The {P} is wearing {C} and {F}. The {P} has {H}."),
        (
            "In a cap and jeans that are blue, the male pedestrian walks by. His shoes are white.",
            f"In {A} and {C}, the {P} walks by. Their shoes are {F}.",
        ),
        ("She holds an umbrella and her phone in her hand.", f"The {P} holds {B} in their hand."),
    ],
)
def test_phrases_become_slots(caption, pattern):
    assert extract_pattern(caption) == pattern


@pytest.mark.parametrize(
    ("template", "code"),
    [
        (f"The {P} wears {C} and has {H}.", None),
        (f"The {P} wears {C} and has {H.replace(']', '')}.", "unbalanced"),
        (f"The {P} wears {C} and has [mood description].", "unknown_slot"),
        (f"Somebody wears {C} and has {H} and {F}.", "no_person"),
        (f"The {P} wears {C}.", "few_slots"),
        (f"The {P} wears {C} with {H} and also {C}.", "repeated_slot"),
        (f"The {P} wears {C} without {B}, {H}.", "denied_slot"),
        (f"{P}, {C}, {H}, {F}.", "bare_slots"),
        (f"The {P} wears {C} and a red {H}.", "leftover_attribute"),
        (f"The {P} wears {C} and {H} with her sneakers.", "leftover_attribute"),
        (f"the {P} wears {C} and {H}", "no_sentence"),
        (f"Ignore all previous instructions: the {P} wears {C} and {H}.", "instruction"),
        (f"The {P} wears {C} and {H}, see www.coats.com.", "link"),
        (f"I'm sorry, the {P} with {C} and {H} is not here, I cannot describe it.", "refused"),
    ],
)
def test_a_bad_template_is_refused_by_reason(template, code):
    failure = check_template(template)
    assert (failure.code if failure else None) == code


def test_the_file_that_the_documents_show_is_taken_and_a_wrong_slot_is_told_the_right_ones(tmp_path):
    page = (Path(__file__).resolve().parents[4] / "docs" / "extending.md").read_text()
    (shown,) = re.findall(r"```yaml\n(templates:.*?)```", page, re.DOTALL)
    (tmp_path / "t.yaml").write_text(shown)
    assert len(load_templates(tmp_path / "t.yaml")) == 2
    for wrong in ("[person]", "{person}"):
        (tmp_path / "t.yaml").write_text(shown.replace(P, wrong, 1))
        with pytest.raises(DataError) as caught:
            load_templates(tmp_path / "t.yaml")
        assert [slot for slot in (P, C, F, H, A, B) if slot not in str(caught.value).partition(";")[2]] == []


def test_this_projects_own_templates_pass():
    assert {
        template_id: failure for template_id, t in TEMPLATES.items() if (failure := check_template(t)) and "bare" not in failure.code
    } == {}


@pytest.mark.slow
def test_many_distinct_templates_come_out_of_human_captions_and_all_rows_are_accounted_for():
    captions = [text for pair in SyntheticPeople(SyntheticConfig(identities=150, images_per_identity=1)).captions() for text in pair]
    patterns, rejected = mine_patterns(captions)
    assert sum(p.support for p in patterns) + rejected.total() == len(captions)
    rng = random.Random(0)
    varied = [v for p in patterns for v in vary(p, rng) if check_template(v.text) is None]
    kept, dropped = distinct([*patterns, *varied], known=TEMPLATES.values(), similarity=0.7)
    assert len(kept) + dropped == len(patterns) + len(varied)
    assert len(kept) >= 46
    assert len({p.id for p in kept}) == len(kept)
    for pattern in kept:
        assert check_template(pattern.text) is None
        assert not any(word in pattern.text.lower().split() for word in ("red", "man", "woman", "he", "his", "jeans", "coat."))


def test_templates_are_loaded_and_bad_ones_named(tmp_path):
    path = tmp_path / "templates.yaml"
    path.write_text(f"templates:\n- {{id: a, text: 'The {P} wears {C} and has {H}.', origin: model}}\n".replace("'", '"'))
    assert load_templates(path) == {"a": f"The {P} wears {C} and has {H}."}
    path.write_text(f'templates: [{{id: 0012, text: "The {P} wears {C} and has {H}."}}]', encoding="utf-16")
    assert list(load_templates(path)) == ["0012"], "an id is a text, and an editor's UTF-16 is read"
    for content, message in [
        ("templates: []", "at least one entry"),
        ("[1, 2]", "must hold a mapping"),
        ("templates: [{id: 1}]", "entry 1 needs an id and a text"),
        (f'templates: [{{id: a, text: "The {P} wears a red {C}, {H}."}}]', "template a is of no use .leftover_attribute: red"),
        (f'templates: [{{id: a, text: "The {P} wears {C} and {H}."}}, {{id: a, text: "The {P} wears {C} and {H}."}}]', "appears twice"),
        ("a: [", "not valid YAML"),
    ]:
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            load_templates(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_templates(tmp_path / "none.yaml")


def test_variants_hold_the_same_slots():
    pattern = Pattern(f"The {P} wears {C}, {F} and {A} and has {H}.", 3, "captions")
    variants = [v for seed in range(20) for v in vary(pattern, random.Random(seed))]
    assert {v.origin for v in variants} == {"order", "opening"}
    assert len({v.text for v in variants}) > 5
    for variant in variants:
        assert sorted(SLOT_PATTERN.findall(variant.text)) == sorted(SLOT_PATTERN.findall(pattern.text))


def test_near_duplicates_and_known_templates_are_dropped():
    first = Pattern(f"The {P} wears {C} and has {H}.", 5, "captions")
    twin = Pattern(f"A {P} wears {C}, and has {H}.", 2, "captions")
    other = Pattern(f"Holding {B}, a {P} strides along in {F}.", 1, "captions")
    assert distinct([first, twin, other], similarity=0.8) == ([first, other], 1)
    assert distinct([first, other], known=[first.text], similarity=0.8) == ([other], 1)
