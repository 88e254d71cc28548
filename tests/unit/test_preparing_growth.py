"""The slope that benchmarks/prepare.py reports."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.preparing_growth import slope_of


def test_the_slope_is_that_of_least_squares_through_the_origin_with_students_interval():
    pairs = [(3.0, 3.2), (3.0, 2.9), (10.0, 10.9), (10.0, 11.4)]
    x, y = np.log(pairs).T
    slope, upper = slope_of(pairs)
    (best,), (squares,), _, _ = np.linalg.lstsq(x[:, None], y, rcond=None)
    assert slope == pytest.approx(best)
    assert upper == pytest.approx(best + stats.t.ppf(0.975, 3) * np.sqrt(squares / 3 / (x**2).sum()))


def test_work_in_proportion_to_the_images_has_a_slope_of_one_and_no_doubt():
    assert slope_of([(3.0, 3.0), (10.0, 10.0)]) == pytest.approx((1.0, 1.0))
