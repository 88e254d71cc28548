"""Kills of edit runs in long series, at random moments."""

from __future__ import annotations

import pytest
from kill_series import total_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("editor", "kills"), [("scripted", 24), ("tiny", 6)])
def test_no_kill_at_a_random_moment_loses_doubles_or_ages_an_edit(root, tmp_path, editor, kills):
    total = total_of(root, tmp_path, "benchmarks/edit_kills.py", "--editor", editor, kills=kills, held=2 * 2 * 8, limit_s=1700)
    assert [total[name] for name in ("lost", "duplicated", "stale", "other_content", "quarantined")] == [0, 0, 0, 0, 0]
