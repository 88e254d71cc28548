"""Each mutation of the list still stands where it says: its text once in its file, and the tests that should notice exist."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "mutations"))

from catalogue import MUTATIONS  # noqa: E402


def test_a_mutation_changes_one_place():
    assert [mutation.name for mutation in MUTATIONS if (ROOT / mutation.file).read_text().count(mutation.old) != 1] == []


def test_the_tests_that_should_notice_a_mutation_are_there():
    missing = []
    for test in (test for mutation in MUTATIONS for test in mutation.tests):
        file, _, name = test.partition("::")
        if f"def {name.partition('[')[0]}" not in (ROOT / file).read_text():
            missing.append(test)
    assert missing == []
