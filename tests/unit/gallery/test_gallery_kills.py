"""A gallery's writer that is killed before a call: nothing acknowledged is lost, nobody erased comes back, no id is wrong."""

import pytest
from kill_points import outcomes

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("every", [37, pytest.param(1, marks=pytest.mark.soak("gallery_kills"))], ids=["one call in 37", "every call"])
def test_a_kill_before_a_call_loses_no_acknowledged_write_and_brings_nobody_back(every, tmp_path):
    found = outcomes("gallery_to_kill", "write", tmp_path, every=every)
    assert len(found) > 500 / every
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    kinds = ("lost", "back", "erased_in_snapshot", "changed_by_opening", "old_lost", "remnants", "faults", "hidden")
    assert [each for each in found if any(each[kind] for kind in kinds)] == []
