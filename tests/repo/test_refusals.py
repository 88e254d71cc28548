"""How many tests hold an error to its wording: fewer and fewer. What a refusal must name is said with `refused` (shared/refusals.py)."""

BOUND = 100  # lower it with every test that changes over; it never rises


def test_no_more_tests_than_before_hold_an_error_to_its_wording(root):
    wording = "match" + "="  # in two, for this file is searched as well
    found = {str(file.relative_to(root)): file.read_text("utf-8").count(wording) for file in (root / "tests").rglob("*.py")}
    assert sum(found.values()) <= BOUND, {file: count for file, count in found.items() if count}
