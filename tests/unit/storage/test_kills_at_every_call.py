"""A process that dies before any file-system call of a commit leaves the older result or the newer one, whole, and nothing of others."""

import pytest
from kill_points import outcomes


@pytest.mark.parametrize("first", [True, False], ids=["the first result", "a replacement"])
@pytest.mark.parametrize("exchange", [True, False], ids=["names are exchanged", "names are changed one by one"])
def test_a_kill_before_any_call_of_a_commit_leaves_one_whole_result(first, exchange, tmp_path):
    found = outcomes("outputs_to_kill", "write", tmp_path, first=first, exchange=exchange)
    assert len(found) >= 12
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    older = None if first else 1
    gap = {None} if not exchange else set()  # for one moment only the next run sees the older result
    assert {each["dead"] for each in found} <= {older, 2} | gap
    assert {each["restored"] for each in found} == {older, 2}
    assert found[-1]["dead"] == 2
    assert all(each["again"] == 4 and each["left"] == [] and each["left_by_failure"] == [] for each in found)
    assert all(each["others"] and each["others_again"] for each in found)
