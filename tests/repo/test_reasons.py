"""docs/reasons.md has every code that a refused row can have: the codes are collected from the source, not kept in a list."""

import ast
import re
from pathlib import Path

import pytest

from reid_ray.caption.filters.validation import RULES
from reid_ray.data.image_records import MENDED
from reid_ray.reasons import LEFT_OUT

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reasons.md"
CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
# Which argument of a call is the code.
POSITION = {
    "Skipped": 2,
    "skipped": 1,
    "_skipped": 1,
    "refused": 1,
    "BadImageError": 0,
    "NotFootageError": 0,
    "_damaged": 1,
    "NoMemberError": 0,
    "CannotExpressError": 0,
    "BadAnswerError": 0,
    "Violation": 0,
    "_keep": 2,
    "_without": 1,
    "_counted_out": 3,
    "refused_row": 1,
}
# Variables, attributes and mappings that hold reasons, or count by them.
HOLDERS = re.compile(r"\b(?:reasons?|unused|failed|captions_failed|unread|left_out|why|QUARANTINED)\b")


def texts_of(node):
    """The texts that an expression can be; of an f-string its beginning."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        yield node.values[0].value
    elif isinstance(node, ast.IfExp):
        yield from (*texts_of(node.body), *texts_of(node.orelse))


def reasons_in(node):
    """The expressions of a syntax node that are reasons."""
    if isinstance(node, ast.Call):
        position = POSITION.get(getattr(node.func, "id", getattr(node.func, "attr", "")))
        yield from node.args[position : position + 1] if position is not None else ()
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "reason")
    elif isinstance(node, ast.Dict):
        yield from (
            value for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant) and key.value == "reason"
        )
    elif isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Subscript) and HOLDERS.search(ast.unparse(target.value)):
                yield from (target.slice, node.value)
            elif HOLDERS.search(ast.unparse(target)):
                yield node.value
    elif isinstance(node, ast.FunctionDef) and node.name.startswith("why"):  # what it returns is a row's reason
        yield from (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return))


def codes_of(source):
    """The codes in a module's text: what stands before a colon, or the whole."""
    texts = [text for node in ast.walk(ast.parse(source)) for reason in reasons_in(node) for text in texts_of(reason)]
    return {code for text in texts if CODE.fullmatch(code := text.partition(": ")[0])}


def template_codes():
    """Of the table in check_template."""
    tree = ast.parse((ROOT / "reid_ray" / "caption" / "mine" / "patterns.py").read_text())
    rules = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "check_template")
    return {row.elts[0].value for row in ast.walk(rules) if isinstance(row, ast.Tuple) and isinstance(row.elts[0], ast.Constant)}


@pytest.mark.slow
def test_the_page_has_every_code_and_no_other():
    folders = ("data", "crop", "caption", "edit", "train", "retrieval", "serve/adding", "serve/same_person")
    sources = [path.read_text() for folder in folders for path in sorted((ROOT / "reid_ray" / folder).rglob("*.py"))]
    codes = {*RULES, *MENDED, "failed", *template_codes()}.union(*map(codes_of, sources))
    tables = PAGE.read_text().partition("## An image")[2]
    shown = {code for row in tables.splitlines() if row.startswith("| `") for code in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert codes - shown == set(), "needs a row in docs/reasons.md"
    assert shown - codes == set(), "no row can have this reason"


def test_left_out_is_what_the_page_says_nothing_is_to_be_done_about():
    rows = [row.strip("| ").split(" | ") for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    nothing_to_do = {code for codes, *_, remedy in rows for code in re.findall(r"`(\w+)`", codes) if remedy.startswith("nothing")}
    assert nothing_to_do == LEFT_OUT


def test_a_new_code_is_seen():
    assert codes_of('yield Skipped(name, dataset, "no_feet", "has none")') == {"no_feet"}
    assert codes_of('raise BadImageError("upside_down", "")') == {"upside_down"}
    assert codes_of('row |= {"status": "failed", "reason": f"no_head: {row}"}') == {"no_head"}
    assert codes_of('counts.unused["too_far"] += 1') == {"too_far"}
    assert codes_of('reason = "a" if found else "b"') == {"a", "b"}
