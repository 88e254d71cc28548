"""Cleaning: what chat models put around a caption goes, and an answer that is none gets its reason."""

from __future__ import annotations

import time

import pytest

from reid_ray.caption.filters.cleaning import BadAnswerError, clean_answer
from reid_ray.caption.filters.config import ValidationConfig

CAPTION = "A woman in a red coat carries a black bag."


@pytest.mark.parametrize(
    "answer",
    [
        CAPTION,
        f"  {CAPTION}\n",
        f'"{CAPTION}"',
        f"Caption: {CAPTION}",
        f"Sure! Here is the rewritten caption:\n\n{CAPTION}",
        f"Here's a description of the person in the image: {CAPTION}",
        f"Certainly. Here is a new caption: \u201c{CAPTION}\u201d",
        f"**Rewritten caption:** {CAPTION}",
        f"{CAPTION}\n\nNote: I changed the order of the words.",
        "A woman in a red coat\ncarries a\tblack bag.",
    ],
)
def test_a_caption_is_found_in_what_was_said_around_it(answer):
    assert clean_answer(answer, finished=True, limits=ValidationConfig(min_words=4)) == CAPTION


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty_answer"),
        (" \n\t ", "empty_answer"),
        ("I'm sorry, but I cannot describe the person.", "refused"),
        ("As an AI language model, I have no eyes for this.", "refused"),
        ("A man wearing [clothing description] and shoes.", "left_over_slot"),
        ("A man wearing [clothing description ] and shoes.", "left_over_slot"),
        ("The [person/woman/man] wears a red coat.", "left_over_slot"),
        ("A man in a blue shirt <|im_end|> user", "markup"),
        ("A man in a \ufffd\ufffd shirt and shoes.", "garbled"),
        ("12 34 56 78 !!", "garbled"),
        ("A man.", "too_short"),
        ("Rewrite this image caption:", "instruction"),
    ],
)
def test_an_answer_that_is_no_caption_gets_its_reason(answer, reason):
    with pytest.raises(BadAnswerError) as error:
        clean_answer(answer, finished=True, limits=ValidationConfig(min_words=5))
    assert error.value.reason == reason


def test_an_answer_cut_at_the_limit_loses_only_its_unfinished_sentence():
    assert clean_answer(f"{CAPTION} She also wears a pair of", finished=False, limits=ValidationConfig(min_words=4)) == CAPTION
    assert clean_answer(f"{CAPTION}\n\nNote: this was", finished=False, limits=ValidationConfig(min_words=4)) == CAPTION
    with pytest.raises(BadAnswerError, match="unfinished"):
        clean_answer("A woman in a red coat who carries", finished=False, limits=ValidationConfig(min_words=4))


ENDLESS = {
    "a red coat and ": "repetition",
    "red ": "repetition",
    "A man in a red coat walks. ": "repetition",
    "The answer is: ": "repetition",
    "a": "too_short",
    "a-": "garbled",
    "a.": "garbled",
    "a@": "garbled",
    "!": "garbled",
    "; ": "markup",
    "|": "markup",
    "\n|": "markup",
    "\n- ": "garbled",
    "[": "garbled",
    "\u7ea2": "other_script",
    "\ufffd": "garbled",
}


@pytest.mark.parametrize("unit", list(ENDLESS))
def test_an_answer_that_repeats_itself_for_ever_is_told_by_its_reason_and_takes_time_by_its_length(unit):
    clock = time.process_time()
    with pytest.raises(BadAnswerError) as error:
        clean_answer(unit * (40_000 // len(unit)), finished=False, limits=ValidationConfig())
    assert error.value.reason == ENDLESS[unit]
    assert time.process_time() - clock < 3


def test_ordinary_captions_are_left_alone():
    for caption in [
        "Description is hard here, a man in 3/4 trousers walks.",
        "It's a man's 'vintage' jacket, size XL.",
        "Sure-footed man in boots.",
    ]:
        assert clean_answer(caption, finished=True, limits=ValidationConfig(min_words=3)) == caption
