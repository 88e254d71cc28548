"""A crop job that is killed before any of its calls: the older result or the newer, no stretch done twice, no crop lost or doubled."""

import pytest
from crop_to_kill import FRAMES, STRETCHES
from kill_points import outcomes

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("every", [67, pytest.param(3, marks=pytest.mark.soak("job_kills"))])
def test_a_kill_before_any_call_costs_at_most_the_stretches_that_are_not_through(every, tmp_path):
    found = outcomes("crop_to_kill", "run", tmp_path, every=every)
    assert len(found) > 5
    assert [each["died"] for each in found] == [True] * (len(found) - 1) + [False]
    assert (found[0]["dead"], found[-1]["dead"]) == (1, 2)
    assert {each["dead"] for each in found} == {1, 2}  # never none, never a torn one
    assert {each["again"] for each in found} == {2}
    assert len({tuple(each["rows"]) for each in found}) == 1
    assert found[0]["rows"][0] > 1
    assert all(each["left"] == [] for each in found)
    alone = found[0]["looked"]  # of a run with nothing kept
    assert alone >= FRAMES
    assert {each["kept"] for each in found} >= {0, 1, STRETCHES}
    for each in found:
        assert each["kept"] == 0 or each["looked"] < alone
        assert each["kept"] < STRETCHES or each["looked"] == 0
