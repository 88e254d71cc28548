"""Prompts: enough distinct templates over known slots, drawn evenly and repeatably."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import jinja2
import pytest

from reid_ray.caption.config import CaptionJob
from reid_ray.caption.existing.config import RewriteJob
from reid_ray.caption.prompts import SLOT_PATTERN, SLOTS, TEMPLATES, dynamic_instruction, rewrite_request, static_instruction
from reid_ray.config import load_config

CONFIGS = Path(__file__).resolve().parents[3] / "jobs" / "configs" / "caption"


def _shape(template: str) -> tuple[str, ...]:
    return tuple(SLOT_PATTERN.findall(template))


def test_there_are_at_least_46_templates_distinct_in_words_openings_and_orders():
    assert len(TEMPLATES) >= 46
    normal = {" ".join(template.lower().split()) for template in TEMPLATES.values()}
    assert len(normal) == len(TEMPLATES)
    assert len({" ".join(template.split()[:3]) for template in TEMPLATES.values()}) > 40
    assert len({_shape(template) for template in TEMPLATES.values()}) > 35


def test_every_template_names_the_person_and_clothing_and_only_known_slots():
    for template_id, template in TEMPLATES.items():
        slots = _shape(template)
        assert set(slots) <= set(SLOTS.values()), template_id
        assert len(set(slots)) == len(slots), f"{template_id} has a slot twice"
        assert slots.count(SLOTS["person"]) == slots.count(SLOTS["clothing"]) == 1, template_id
        assert "{" not in template
        assert "[" not in SLOT_PATTERN.sub("", template), template_id


def test_drawing_is_repeatable_and_reaches_every_template_about_equally():
    drawn = Counter(dynamic_instruction(str(key)).id for key in range(10_000))
    assert drawn == Counter(dynamic_instruction(str(key)).id for key in range(10_000))
    assert set(drawn) == {f"dynamic/{template_id}" for template_id in TEMPLATES}
    even = 10_000 / len(TEMPLATES)
    assert all(0.6 * even < count < 1.4 * even for count in drawn.values())


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
