"""The plan of an edit: a pure function of seed and tables, balanced over looks, and never the look that is there already."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from reid_ray.attributes.lexicon import token_places
from reid_ray.attributes.parser import read_attributes
from reid_ray.edit.changes.change_draw import DrawnEdit, LinkedSegment, draw_edit
from reid_ray.edit.changes.looks import LooksIndex
from reid_ray.edit.changes.new_person import FIRST_NEW, is_new, new_person_id, who_is
from reid_ray.edit.config import ChangesConfig

TEXT = "A man with short black hair wearing a red striped shirt, blue jeans and white shoes, carrying a bag."
COLORS = ("black", "white", "red", "blue", "green")


def bank(counts=None):
    index = LooksIndex()
    for slot in ("hair", "upper", "lower", "shoes"):
        for color in COLORS:
            for number in range((counts or {}).get(color, 2)):
                index.add(f"{slot} {color} {number}", slot, json.dumps({f"{slot}_color": color, slot: "whatever"}))
    return index


def segments(text=TEXT, caption="c1"):
    places = {token.word: token for token in token_places(text)}
    nouns = {"hair": "hair", "upper": "shirt", "lower": "jeans", "shoes": "shoes", "bag": "bag"}
    return [
        LinkedSegment(slot, caption, places[noun].start, places[noun].stop, 0.1, row)
        for row, (slot, noun) in enumerate(nouns.items())
        if noun in places
    ]


def drawn(who="person market 1", config=ChangesConfig(), number=0, index=None):  # noqa: B008 - frozen
    return draw_edit(who, segments(), {"c1": TEXT}, index or bank(), config, number=number)


def test_the_same_seed_and_tables_plan_the_same_edit_in_whatever_order_they_come():
    shuffled = LooksIndex()
    for slot in ("shoes", "lower", "upper", "hair"):
        for color in reversed(COLORS):
            for number in (1, 0):
                shuffled.add(f"{slot} {color} {number}", slot, json.dumps({f"{slot}_color": color}))
    plan = drawn()
    assert draw_edit("person market 1", segments()[::-1], {"c1": TEXT}, shuffled, ChangesConfig(), number=0) == plan
    others = [drawn(number=1), drawn(config=ChangesConfig(seed=1)), drawn("person market 2")]
    assert all(other != plan for other in others)


@pytest.mark.slow
def test_an_edit_changes_one_to_three_slots_into_something_else_and_says_so():
    sizes = Counter()
    for person in range(200):
        plan = drawn(f"person market {person}")
        assert isinstance(plan, DrawnEdit)
        sizes[len(plan.changes)] += 1
        before = {thing.slot: thing for thing in read_attributes(TEXT).things}
        after = {thing.slot: thing for thing in read_attributes(plan.text).things}
        changed = {each.segment.slot for each in plan.changes}
        for each in plan.changes:
            ((_, color),) = each.look
            assert after[each.segment.slot].said["color"] == [frozenset({color})]
            assert not frozenset({color}) & before[each.segment.slot].said["color"][0]
            assert len(set(each.references)) == 2  # of three tries, as the bank has two
            assert all(name.startswith(f"{each.segment.slot} {color}") for name in each.references)
        assert all(after[slot] == thing for slot, thing in before.items() if slot not in changed)
    assert sizes.keys() == {1, 2, 3}
    assert min(sizes.values()) > 40
    assert {len(drawn(f"person market {n}", ChangesConfig(most_slots=1)).changes) for n in range(20)} == {1}


@pytest.mark.slow
def test_a_look_is_drawn_as_often_as_any_other_however_many_references_have_it():
    index = bank({"green": 200, "white": 1})
    looks = Counter(index.draw_look("upper", {"color": frozenset({"red"})}, f"key {n}") for n in range(2000))
    assert set(looks) == {(("color", color),) for color in COLORS if color != "red"}
    assert max(looks.values()) < 1.3 * min(looks.values())


@pytest.mark.slow
def test_all_pictures_of_a_person_change_alike_as_far_as_they_show_the_same():
    text, common = "A man in a red shirt and blue jeans.", 0
    for person in range(30):
        plans = [drawn(f"p {person}"), draw_edit(f"p {person}", segments(text, "c2"), {"c2": text}, bank(), ChangesConfig(), number=0)]
        whole, part = ({each.segment.slot: (each.look, each.references) for each in plan.changes} for plan in plans)
        common += len(whole.keys() & part.keys())
        assert all(whole[slot] == part[slot] for slot in whole.keys() & part.keys())
    assert common > 15


@pytest.mark.parametrize(
    ("text", "config", "index", "why"),
    [
        ("A man who walks.", {}, None, "no_slot"),
        ("A man in a shirt.", {}, None, "look_unknown"),
        ("A man in a red shirt.", {}, LooksIndex(), "no_other_look"),
        ("A man in a red shirt, all in red.", {}, None, "cannot_be_said"),
        ("A man in a red shirt.", {"slots": ["hair"]}, None, "no_slot"),
        ("A man in a red shirt.", {"min_area": 0.5}, None, "no_slot"),
    ],
)
def test_what_cannot_be_changed_is_refused_with_a_reason(text, config, index, why):
    found = segments(text, "c")
    assert draw_edit("p", found, {"c": text}, bank() if index is None else index, ChangesConfig(**config), number=0) == why


@pytest.mark.slow
def test_new_people_are_nobody_real_and_the_same_in_every_run():
    worn = [("upper", "a"), ("shoes", "b")]
    who = who_is("market", 7, "img")
    new = new_person_id(who, worn)
    assert new == new_person_id(who, worn[::-1])
    assert is_new(new)
    assert not is_new(FIRST_NEW - 1)
    assert float(new) == new
    others = [
        new_person_id(who_is("msmt", 7, "img"), worn),
        new_person_id(who, worn[:1]),
        new_person_id(who, [("upper", "a"), ("shoes", "c")]),
    ]
    assert new not in others
    assert who_is("market", None, "a") != who_is("market", None, "b")
    assert len({new_person_id(f"person {n}", worn) for n in range(20_000)}) == 20_000


def test_a_caption_with_more_that_can_be_changed_is_chosen():
    poor = "A man in a red shirt."
    found = [*segments(), *(replace(each, row=9) for each in segments(poor, "c0"))]
    for person in range(20):
        assert draw_edit(f"p {person}", found, {"c1": TEXT, "c0": poor}, bank(), ChangesConfig(), number=0).caption_id == "c1"
