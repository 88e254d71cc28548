"""Nouns are linked to what an image shows, at most three of a caption, and every image, slot and caption is accounted for."""

from __future__ import annotations

from collections import Counter

import pytest

from reid_ray.edit.human_parsing.linked import CaptionText, images_of, linked_rows
from reid_ray.records import SEGMENTS, table_of

SLOTS = ["hair", "upper", "lower", "shoes", "bag", "hat"]


def shown(slot, **changes):
    row = {
        "image_id": "a",
        "slot": slot,
        "source": "truth",
        "status": "ok",
        "mask": b"png",
        "box": [0, 0, 1, 1],
        "area": 0.5,
        "reason": None,
    }
    return {**row, "split": "train", "noun": None, **changes}


def absent(slot):
    return shown(slot, status="absent", reason="no_pixels", mask=None, box=None, area=None)


def by_slot(rows):
    return {row["slot"]: (row["status"], row["reason"] or row["noun"]) for row in rows}


def test_a_noun_is_linked_where_caption_and_image_agree_and_all_else_says_why():
    text = "A man in a black jacket over a white shirt, navy trousers, white shoes, with a cap and no bag."
    found = [
        shown("upper"),
        shown("lower"),
        shown("shoes"),
        absent("hat"),
        shown("bag"),
        absent("hair") | {"status": "failed", "reason": "truncated: x"},
    ]
    rows = linked_rows(found, [CaptionText("c", text)], slots=[*SLOTS, "full"], most_slots=3)
    assert by_slot(rows) == {
        "hair": ("failed", "truncated: x"),
        "upper": ("absent", "several_named"),
        "lower": ("ok", "trousers"),
        "shoes": ("ok", "shoes"),
        "bag": ("absent", "not_named"),
        "hat": ("absent", "no_pixels"),
        "full": ("absent", "not_looked_for"),
    }
    assert all(text[row["noun_start"] : row["noun_end"]] == row["noun"] for row in rows if row["status"] == "ok")
    assert all((row.get("mask") is None) is (row["status"] != "ok") for row in rows)
    assert {row["caption_id"] for row in rows} == {"c"}
    assert table_of(SEGMENTS, rows).num_rows == 7


def test_of_more_than_three_things_three_are_drawn_and_over_many_captions_all_of_them():
    text = "A woman with long hair in a red coat, blue jeans and black boots, with a bag and a cap."
    found, drawn = [shown(slot) for slot in SLOTS], Counter()
    for number in range(60):
        rows = linked_rows(found, [CaptionText(f"c{number}", text)], slots=SLOTS, most_slots=3)
        again = linked_rows(found[::-1], [CaptionText(f"c{number}", text)], slots=SLOTS[::-1], most_slots=3)
        assert by_slot(rows) == by_slot(again)
        ok = [row["slot"] for row in rows if row["status"] == "ok"]
        assert len(ok) == 3
        assert {row["reason"] for row in rows if row["status"] != "ok"} == {"too_many_slots"}
        drawn.update(ok)
    assert min(drawn.values()) > 60 * 3 / 6 / 3
    assert set(drawn) == set(SLOTS)


def test_an_image_with_two_captions_has_its_rows_twice_and_one_without_says_so():
    captions = [CaptionText("one", "A red coat."), CaptionText("two", "Blue jeans.")]
    rows = linked_rows([shown("upper"), shown("lower")], captions, slots=["upper", "lower"], most_slots=3)
    assert [(row["caption_id"], row["slot"], row["noun"]) for row in rows] == [
        ("one", "upper", "coat"),
        ("one", "lower", None),
        ("two", "upper", None),
        ("two", "lower", "jeans"),
    ]
    assert by_slot(linked_rows([shown("upper")], [], slots=["upper"], most_slots=3)) == {"upper": ("absent", "no_caption")}


@pytest.mark.parametrize("status", ["absent", "failed"])
def test_segments_that_were_linked_before_are_taken_with_their_masks_and_without_their_nouns(status):
    lost = shown("upper", status=status, reason="not_named", mask=None, caption_id="one")
    linked = shown("upper", caption_id="two", noun="coat", noun_start=6, noun_end=10)
    (first,), (second,) = images_of([lost, linked, shown("upper", image_id="b")])
    assert (first["mask"], first["status"], first["caption_id"], first["noun"], first["noun_start"]) == (b"png", "ok", None, None, None)
    assert second["image_id"] == "b"
