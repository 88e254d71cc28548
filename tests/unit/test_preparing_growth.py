"""The slope that benchmarks/prepare.py reports."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import preparing_growth
from benchmarks.preparing_growth import prepare_again, side_by_side, slope_of


@pytest.mark.slow
def test_the_slope_is_that_of_least_squares_through_the_origin_with_students_interval():
    from scipy import stats  # here, for it takes half a second

    pairs = [(3.0, 3.2), (3.0, 2.9), (10.0, 10.9), (10.0, 11.4)]
    x, y = np.log(pairs).T
    slope, upper = slope_of(pairs)
    (best,), (squares,), _, _ = np.linalg.lstsq(x[:, None], y, rcond=None)
    assert slope == pytest.approx(best)
    assert upper == pytest.approx(best + stats.t.ppf(0.975, 3) * np.sqrt(squares / 3 / (x**2).sum()))


def test_work_in_proportion_to_the_images_has_a_slope_of_one_and_no_doubt():
    assert slope_of([(3.0, 3.0), (10.0, 10.0)]) == pytest.approx((1.0, 1.0))


def test_the_large_set_begins_when_the_small_one_is_warm_and_first_and_last_do_not_count(tmp_path, monkeypatch):
    runs, begun = itertools.count(), []

    def prepare(out: Path) -> dict:
        time.sleep(0.02)
        return {"seconds": float(next(runs))}

    def in_this_process(script: str, how: str, small: str, scratch: str, over: str) -> dict:
        assert (script, how, small) == ("script", "--again", str(tmp_path))
        return {"found": prepare_again(prepare, Path(scratch), Path(over))}

    def large() -> dict:
        begun.append(next(runs))
        time.sleep(0.3)
        return {"seconds": 0.3}

    monkeypatch.setattr(preparing_growth, "in_own_process", in_this_process)
    beside, took = side_by_side("script", tmp_path, large)
    numbers = [each["seconds"] for each in beside]
    assert took == {"seconds": 0.3}
    assert begun[0] >= 1  # the first was over
    assert numbers
    assert 0.0 not in numbers  # and is not among those that count
    assert max(numbers) < next(runs) - 1  # nor is the last, which the large one may have left alone


def test_a_small_set_that_cannot_be_prepared_is_told(tmp_path, monkeypatch):
    def broken(*words: str) -> dict:
        raise ZeroDivisionError

    monkeypatch.setattr(preparing_growth, "in_own_process", broken)
    with pytest.raises(ZeroDivisionError):
        side_by_side("script", tmp_path, dict)
