"""Under which key the ledger finds a row: each part of a key by itself changes it, and what cannot change a text does not."""

from __future__ import annotations

from typing import Any

import pytest

from reid_ray.caption.config import CaptionerConfig, FaithfulnessConfig, RewriterConfig
from reid_ray.caption.ledger import row_keys
from reid_ray.caption.ledger.row_keys import CaptionRecipe, RewriteRecipe
from reid_ray.caption.prompts import TEMPLATES

CAPTION: dict[str, Any] = {"revision": "r", "templates": None, "max_pixels": 10_000}
REWRITE: dict[str, Any] = {"revision": "r", "scorer_revision": "s"}


def captions(config: dict[str, Any] | None = None, **changes: Any) -> CaptionRecipe:
    return CaptionRecipe(
        CaptionerConfig.model_validate({"instructions": ["dynamic"], "template_tries": 2} | (config or {})), **CAPTION | changes
    )


def rewrites(config: dict[str, Any] | None = None, faithful: dict[str, Any] | None = None, **changes: Any) -> RewriteRecipe:
    sections = RewriterConfig.model_validate({"share": 1} | (config or {})), FaithfulnessConfig.model_validate(faithful or {})
    return RewriteRecipe(*sections, **REWRITE | changes)


def caption_key(recipe: CaptionRecipe) -> tuple[bytes, ...]:
    return recipe.requests("i", "s")[0].keys


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "r2"},
        {"max_pixels": 9_999},
        {"config": {"model": "m2"}},
        {"config": {"adapter": "a"}, "revision": "r+a"},
        {"config": {"sampling": {"seed": 1}}},
        {"config": {"instruction_first": True}},
        {"config": {"limits": {"max_words": 9}}},
        {"config": {"engine": {"chat_template": "x"}}},
        {"config": {"engine": {"extra": {"quantization": "x"}}}},
    ],
    ids=str,
)
def test_each_part_of_a_captions_key_changes_it(change):
    assert not set(caption_key(captions())) & set(caption_key(captions(**change)))


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"model": "m2"}},
        {"revision": "r2"},
        {"scorer_revision": "s2"},
        {"config": {"sampling": {"seed": 1}}},
        {"config": {"limits": {"max_words": 9}}},
        {"faithful": {"alpha": 0.1}},
        {"faithful": {"model": "other"}},
    ],
    ids=str,
)
def test_each_part_of_a_rewrites_key_changes_it(change):
    assert rewrites().keys("c", b"p") != rewrites(**change).keys("c", b"p")


@pytest.mark.parametrize("recipe", [lambda: captions().digest, lambda: rewrites().digest], ids=["captions", "rewrites"])
def test_new_rules_make_every_row_again(recipe, monkeypatch):
    before = recipe()
    monkeypatch.setattr(row_keys, "RULES_VERSION", row_keys.RULES_VERSION + 1)
    assert recipe() != before


@pytest.mark.parametrize("recipe", [captions, rewrites])
def test_marks_of_another_models_weights_or_sampling_are_of_another_stage(recipe):
    stages = {recipe().stage, recipe(revision="r2").stage, recipe({"model": "m2"}).stage, recipe({"sampling": {"seed": 1}}).stage}
    assert len(stages) == 4


def test_a_template_that_was_tried_before_is_part_of_a_later_ones_key():
    three = {"template_tries": 3}
    names = captions(three).requests("i", "s")[0].instruction_ids
    tried = names[1].removeprefix("dynamic/")
    other = TEMPLATES | {tried: TEMPLATES[tried] + " It rains."}
    before, after = captions(three).requests("i", "s")[0], captions(three, templates=other).requests("i", "s")[0]
    assert after.instruction_ids == names
    assert [a == b for a, b in zip(before.keys, after.keys, strict=True)] == [True, False, False]
