"""Prompts: enough distinct templates over known slots, drawn evenly and repeatably."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import jinja2
import pytest

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.existing.config import RewriteJob
from reid_ray.caption.filters.config import ValidationConfig
from reid_ray.caption.filters.validation import check_caption
from reid_ray.caption.prompts import SLOT_PATTERN, SLOTS, TEMPLATES, dynamic_instruction, rewrite_request, static_instruction
from reid_ray.config import load_config
from reid_ray.config.common import SyntheticConfig
from reid_ray.data.synthetic.people import SyntheticPeople, score_caption
from reid_ray.model.tiny.tasks import fill

CONFIGS = Path(__file__).resolve().parents[3] / "jobs" / "configs" / "caption"


def _shape(template: str) -> tuple[str, ...]:
    return tuple(SLOT_PATTERN.findall(template))


def test_there_are_at_least_46_templates_distinct_in_words_openings_and_orders():
    """No first word opens more than a fifth of them, and no order of slots is that of more than a tenth."""
    assert len(TEMPLATES) >= 46
    normal = {" ".join(template.lower().split()) for template in TEMPLATES.values()}
    assert len(normal) == len(TEMPLATES)
    assert len({" ".join(template.split()[:3]) for template in TEMPLATES.values()}) > 40
    assert max(Counter(template.split()[0] for template in TEMPLATES.values()).values()) <= len(TEMPLATES) / 5
    orders = Counter(_shape(template) for template in TEMPLATES.values())
    assert len(orders) > 35
    assert max(orders.values()) <= len(TEMPLATES) / 10


def test_attributes_come_in_every_order():
    """Of any two attributes, each comes before the other in some template; and each of them is asked for by a quarter of them."""
    attributes = [slot for name, slot in SLOTS.items() if name != "person"]
    shapes = [_shape(template) for template in TEMPLATES.values()]
    for slot in attributes:
        assert sum(slot in shape for shape in shapes) >= len(shapes) / 4, slot
        for other in attributes:
            before = any(slot in shape and other in shape and shape.index(slot) < shape.index(other) for shape in shapes)
            assert before or slot == other, (slot, other)


def test_every_template_is_one_sentence_that_reads_on_once_it_is_filled():
    for template_id, template in TEMPLATES.items():
        words = SLOT_PATTERN.sub("X", template)
        assert words.endswith("."), template_id
        assert words.count(".") == 1, template_id
        assert not set(words) & set(":"), f"{template_id} is a list"
        for slot in SLOTS.values():
            if slot != SLOTS["person"]:
                assert not re.search(rf"\b(a|an|the) {re.escape(slot)}", template, re.IGNORECASE), (
                    f"{template_id}: the slot brings its article"
                )


def test_every_template_names_the_person_and_clothing_and_only_known_slots():
    for template_id, template in TEMPLATES.items():
        slots = _shape(template)
        assert set(slots) <= set(SLOTS.values()), template_id
        assert len(set(slots)) == len(slots), f"{template_id} has a slot twice"
        assert slots.count(SLOTS["person"]) == slots.count(SLOTS["clothing"]) == 1, template_id
        assert "{" not in template
        assert "[" not in SLOT_PATTERN.sub("", template), template_id


@pytest.mark.slow
def test_drawing_is_repeatable_and_reaches_every_template_about_equally():
    drawn = Counter(dynamic_instruction(str(key)).id for key in range(10_000))
    assert drawn == Counter(dynamic_instruction(str(key)).id for key in range(10_000))
    assert set(drawn) == {f"dynamic/{template_id}" for template_id in TEMPLATES}
    even = 10_000 / len(TEMPLATES)
    assert all(0.6 * even < count < 1.4 * even for count in drawn.values())


def test_a_template_worded_anew_in_its_place_is_drawn_by_those_that_drew_the_old_one_and_by_nobody_else():
    old = {"t01": "A", "t02": "B", "t03": "C"}
    new = {"t01": "A", "t02b": "B, better", "t03": "C"}
    for key in map(str, range(200)):
        before, after = (dynamic_instruction(key, templates=templates).id for templates in (old, new))
        assert after == {"dynamic/t02": "dynamic/t02b"}.get(before, before)


def test_instructions_carry_what_they_are_made_of():
    dynamic = dynamic_instruction("x")
    assert TEMPLATES[dynamic.id.removeprefix("dynamic/")] in dynamic.text
    assert dynamic.kind == "dynamic"
    assert (static_instruction().id, static_instruction().kind) == ("static", "static")
    assert rewrite_request("A man in red.").startswith("A man in red.\n")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (CaptionJob, "caption_qwen25vl_7b.yaml"),
        (CaptionJob, "caption_llava15_7b.yaml"),
        *((RewriteJob, f"rewrite_{each}.yaml") for each in ("cuhk_pedes", "icfg_pedes", "rstpreid")),
    ],
)
def test_the_shipped_vicuna_template_gives_the_form_it_was_trained_on(model, name):
    template = load_config(model, CONFIGS / name).rewriter.engine.chat_template
    text = jinja2.Environment().from_string(template).render(messages=[{"role": "user", "content": "Hello"}], bos_token="<s>")
    assert text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
        "and polite answers to the user's questions. USER: Hello ASSISTANT:"
    )


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_filled_template_is_a_usable_caption_whose_every_attribute_is_understood(template):
    people = SyntheticPeople(SyntheticConfig(identities=4, images_per_identity=1, val_share=0, test_share=0))
    for attributes in people.attributes():
        text = fill(template, attributes)
        assert check_caption(text, ValidationConfig()) is None, text
        assert not score_caption(text, attributes).wrong, text
