"""A language model's captions of edits: what is asked, what passes, and when the rule's stands."""

import json

import pytest

from reid_ray.caption.engines.protocol import Reply
from reid_ray.edit.config import EditRewriterConfig
from reid_ray.edit.edit_captions import CaptionByModel, EditDescriber, attribute_list
from reid_ray.edit.edit_rows import EDIT_ROWS
from reid_ray.records import table_of

ORIGINAL = "A man in a red striped shirt and blue jeans, with black hair."
RULE = "A man in a green shirt and blue jeans, with blond hair."
SLOTS = [
    {"slot": "upper", "new": json.dumps({"upper_color": "green", "upper_pattern": "plain"})},
    {"slot": "hair", "new": json.dumps({"hair_color": "blond"})},
]
EDIT = {
    "edit_id": "e1",
    "described_id": "c1",
    "described_key": b"k" * 16,
    "original": ORIGINAL,
    "text": RULE,
    "slots": SLOTS,
    "source_image_id": "i",
    "source_sha256": "s",
    "editor": "tiny",
    "caption_kind": "human",
    "dataset": "d",
    "split": "train",
    "camera_id": 1,
}


def described(*answers, **config):
    """(the row, the requests) of a caption for which the answers come one after the other."""
    section = EditRewriterConfig(share=1.0, **config)
    describer = EditDescriber(section, recipe=CaptionByModel(section, revision="r"), revision="r")
    steps, asked, left = describer.work(EDIT), [], list(answers)
    try:
        (request,) = next(steps)
        while True:
            asked.append(request)
            answer = left.pop(0)
            (request,) = steps.send([answer if isinstance(answer, Reply) else Reply(answer, tokens=7)])
    except StopIteration as end:
        (row,) = end.value
        table_of(EDIT_ROWS.schema, [row | {"run": "x", "made": 1.0}])
        return row, asked


def test_the_model_is_given_the_sentence_and_the_references_attributes():
    _, (request,) = described("A man with blond hair wears a green shirt and blue jeans.")
    prompt = request.conversation[0]["content"]
    assert ORIGINAL in prompt
    assert attribute_list(SLOTS) == "upper clothing: green, plain; hair: blond"
    assert attribute_list(SLOTS) in prompt
    assert RULE not in prompt


def test_an_answer_that_says_what_the_rule_says_is_the_caption():
    row, asked = described("Sure, here is it: A man with blond hair wears a green shirt and blue jeans.")
    assert (row["status"], row["text"]) == ("ok", "A man with blond hair wears a green shirt and blue jeans.")
    assert row["agreement"] == 1
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (ORIGINAL, "unfaithful", "unfaithful"),  # it changed nothing
        ("A man with blond hair wears a green shirt and red shorts.", "unfaithful", "unfaithful"),
        ("A man in a green shirt, hm.", "failed", "too_short"),
        ("I'm sorry, I cannot help with that request about a person.", "failed", "refused"),
        (Reply(None, error="too long"), "failed", "rejected"),
    ],
)
def test_other_answers_are_not_and_are_asked_for_again_until_the_tries_are_spent(answer, status, code):
    row, asked = described(*[answer] * 3)
    assert (row["status"], row["reason"].partition(":")[0], row["tries"]) == (status, code, 3)
    assert len({request.key for request in asked}) == len(asked) == 3
    good, asked = described(answer, "A man with blond hair wears a green shirt and blue jeans.")
    assert (good["status"], good["reason"], len(asked)) == ("ok", None, 2)


def test_the_threshold_is_the_configurations():
    lost_one = "A man with blond hair wears a green shirt, and jeans."
    strict, _ = described(*[lost_one] * 3, min_agreement=1.0)
    assert strict["status"] == "unfaithful"
    assert described(lost_one, min_agreement=strict["agreement"])[0]["status"] == "ok"
