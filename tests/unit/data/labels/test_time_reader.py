"""Times as people write them, at the two odd hours of a year."""

from datetime import UTC, datetime

import pytest

from reid_ray.data.labels.time_reader import TimeReader


def test_the_hour_that_comes_twice_is_the_first_and_the_one_that_is_skipped_is_no_time():
    berlin = TimeReader(None, "Europe/Berlin")
    assert berlin.read("2026-10-25T02:30:00") == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert berlin.read("2026-03-29T01:59:59") == datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)
    with pytest.raises(ValueError, match="Europe/Berlin skip"):
        berlin.read("2026-03-29T02:30:00")
    assert berlin.read("2026-03-29T02:30:00+01:00") == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
