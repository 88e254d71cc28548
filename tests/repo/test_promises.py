"""Every line of the pages of promises and of equalities names a test that exists, and every test that a page names does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
BENCHMARK = re.compile(r"`(benchmarks/\w+\.py)`")
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_test_that_a_page_names_exists(page):
    for file, test in NAMED.findall(page.read_text()):
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file} has no {test}"


def test_every_promise_is_held_by_a_test():
    rows = [line for line in (ROOT / "docs" / "promises.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| promise", "| ---"))]
    assert len(promises) > 30
    assert [row for row in promises if not NAMED.search(row)] == []


def test_every_equality_says_how_equal_and_is_held_or_says_that_it_is_not():
    rows = [line for line in (ROOT / "docs" / "equalities.md").read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows if not row.startswith(("| what is compared", "| ---"))]
    assert len(cells) > 30
    held = {what: bool(NAMED.search(by) or any((ROOT / file).is_file() for file in BENCHMARK.findall(by))) for what, _, by in cells}
    assert [what for what, equal, _ in cells if held[what] == equal.startswith("not held: ")] == []
    exact = re.compile(r"bitwise|not held: |the same|the others are|(losses |distances )?within \d")
    assert [equal for _, equal, _ in cells if not exact.match(equal)] == []
