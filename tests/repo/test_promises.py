"""Every line of the page of promises names a test that exists, and every test that a page names does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
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
