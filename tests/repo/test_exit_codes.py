"""The table of exit codes names tests that exist: one for each way to end."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [line for line in (ROOT / "docs" / "exit_codes.md").read_text().splitlines() if line.startswith("| ") and "held by" not in line]


def test_every_way_to_end_is_held_by_a_test_that_exists():
    ways = [row for row in ROWS if row.count("|") == 6 and not row.startswith("| ---")]
    assert len(ways) > 25
    for way in ways:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", way)
        assert named, way
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(), f"{file} has no {test}"


@pytest.mark.parametrize("script", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_every_job_ends_by_the_table(script):
    called = {getattr(node.func, "id", None) for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)}
    assert "run_named" in called, f"{script.name} ends on its own account"
