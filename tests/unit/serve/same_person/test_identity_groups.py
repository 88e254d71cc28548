"""What follows from decisions: groups, splits, contradictions and numbers."""

from __future__ import annotations

import random

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_ray.serve.same_person.decision_log import Decision
from reid_ray.serve.same_person.identity_groups import IdentityGroups, KnownImage

PLAIN = [KnownImage(name) for name in "abcdef"]


def groups(decisions, images=PLAIN):
    return IdentityGroups(images, [Decision(number, says, *rest) for number, (says, *rest) in enumerate(decisions, 1)])


def parts(found, images=PLAIN):
    sets = {}
    for image in images:
        sets.setdefault(found.group_of(image.image_id), set()).add(image.image_id)
    return sorted("".join(sorted(each)) for each in sets.values())


def test_same_joins_and_the_later_of_two_decisions_about_a_pair_holds():
    said = [("same", ("a", "b")), ("same", ("b", "c")), ("same", ("d", "e")), ("different", ("e", "d"))]
    found = groups(said)
    assert parts(found) == ["abc", "d", "e", "f"]
    assert found.are_apart("d", "e")
    assert parts(groups([*said, ("undo", (), 4)])) == ["abc", "de", "f"]


def test_what_is_different_from_one_of_a_group_is_different_from_all_of_it():
    found = groups([("same", ("a", "b")), ("different", ("b", "c")), ("same", ("c", "d"))])
    assert found.are_apart("a", "d")
    assert not found.are_apart("a", "e")


def test_decisions_that_contradict_each_other_are_named_and_mended_by_a_later_one():
    said = [("same", ("a", "b")), ("same", ("b", "c")), ("different", ("a", "c"))]
    found = groups(said)
    assert found.contradicted == {found.group_of("a")}
    assert not groups([*said, ("different", ("b", "c"))]).contradicted
    assert not groups([*said, ("undo", (), 1)]).contradicted


def test_an_image_that_is_taken_out_leaves_what_it_was_joined_to_and_may_be_joined_anew():
    images = [KnownImage("a", "mine", 5), KnownImage("b", "mine", 5), KnownImage("c", "mine", 7), KnownImage("d")]
    found = groups([("same", ("b", "d")), ("out", ("b",)), ("same", ("b", "c"))], images)
    assert parts(found, images) == ["a", "bc", "d"]
    assert parts(groups([("out", ("b",)), ("undo", (), 1)], images), images) == ["ab", "c", "d"]


def test_a_group_has_its_smallest_number_in_the_table_and_others_get_new_ones():
    images = [KnownImage("a", "mine", 7), KnownImage("b", "mine", 5), *map(KnownImage, "cdef")]
    found = groups([("same", ("a", "b")), ("same", ("c", "d"))], images)
    numbers = found.numbers(100)
    assert [numbers.get(found.group_of(name)) for name in "abcdef"] == [5, 5, 100, 100, None, None]


def test_numbers_of_two_data_sets_are_not_one_persons():
    images = [KnownImage("a", "mine", 5), KnownImage("b", "yours", 5)]
    assert parts(groups([], images), images) == ["a", "b"]
    found = groups([("same", ("a", "b"))], images)
    assert found.numbers(9)[found.group_of("a")] == 9  # 5 is somebody else's in one of the two


def test_pictures_of_a_track_are_one_person_where_the_table_knows_nobody():
    images = [KnownImage("a", None, None, "t1"), KnownImage("b", None, None, "t1"), KnownImage("c", "mine", 3, "t1")]
    assert parts(groups([], images), images) == ["ab", "c"]


PAIRS = st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")).filter(lambda pair: pair[0] != pair[1])


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.tuples(st.sampled_from(["same", "different", "skip"]), PAIRS), max_size=25))
def test_groups_are_those_of_a_plain_search(said):
    """Against a flood from each image along the pairs whose last word is same."""
    last = {tuple(sorted(pair)): says for says, pair in said}
    beside = {name: {other for pair, says in last.items() if says == "same" and name in pair for other in pair} for name in "abcdef"}

    def flood(name):
        reached, todo = {name}, [name]
        while todo:
            new = beside[todo.pop()] - reached
            reached |= new
            todo += new
        return frozenset(reached)

    found = groups(said)
    assert parts(found) == sorted({"".join(sorted(flood(name))) for name in "abcdef"})
    clashes = {flood(pair[0]) for pair, says in last.items() if says == "different" and pair[1] in flood(pair[0])}
    assert {found.group_of(min(each)) for each in clashes} == found.contradicted


def test_the_order_of_decisions_about_different_pairs_does_not_matter():
    said = [("same", ("a", "b")), ("same", ("c", "d")), ("same", ("b", "d")), ("different", ("e", "f"))]
    shuffled = random.Random(2).sample(said, len(said))
    assert parts(groups(said)) == parts(groups(shuffled)) == ["abcd", "e", "f"]
