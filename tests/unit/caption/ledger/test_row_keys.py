"""Under which key the ledger finds a row: each part of a key by itself changes it, and what cannot change a text does not."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
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
        {"config": {"shrink": "fast"}},
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


def test_where_an_answer_is_computed_is_no_part_of_a_key():
    elsewhere = {"engine": {"prepared_mb": 1, "max_num_seqs": 3}, "pool": {"replicas": 9}}
    assert caption_key(captions()) == caption_key(captions(elsewhere))
    assert rewrites().keys("c", b"p") == rewrites(elsewhere, {"device": "cuda:0"}).keys("c", b"p")


def test_an_option_that_came_later_leaves_the_keys_that_were_there(monkeypatch):
    said = [captions().digest, captions({"shrink": "reference"}).digest]
    monkeypatch.setattr(row_keys, "AS_BEFORE", {})
    assert said[0] == said[1] != captions().digest


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


# RULES_VERSION -> digest of the code that it stands for. If other answers pass for captions, or other rewrites for faithful ones, than
# before, raise the number and write a new line; if the same do, write the new digest in the old line.
RULES = {1: "6204d63392e55daf"}


def test_the_number_in_every_key_stands_for_the_code_that_decides_what_passes_for_a_caption():
    package = Path(row_keys.__file__).parents[2]
    filters = ("cleaning", "validation", "agreement")
    files = [*(f"caption/filters/{name}.py" for name in filters), "attributes/lexicon.py", "attributes/parser.py"]
    code = [_code(package / name) for name in files]
    assert hashlib.sha256("\n".join(code).encode()).hexdigest()[:16] == RULES[row_keys.RULES_VERSION]


def _code(file):
    """A module's lines less comments, docstrings and empty ones."""
    text = file.read_text()
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    first = [node.body[0] for node in nodes]
    said = [node for node in first if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    left_out = {number for node in said for number in range(node.lineno, node.end_lineno + 1)}
    lines = [line.partition("  # ")[0].strip() for number, line in enumerate(text.splitlines(), 1) if number not in left_out]
    return "\n".join(line for line in lines if line and not line.startswith("#"))
