"""The demo's terminal, whole: every stage of it, with few people, on a terminal and into a file."""

import pytest
from screen import run_on

pytestmark = pytest.mark.slow

FEW = ("synthesize.people.identities=24", "train.schedule.max_steps=4", "train.schedule.validate_every=4")


@pytest.mark.parametrize("kind", ["terminal", "file"])
def test_the_demo_shows_its_own_lines_and_bars_alone(kind, root, tmp_path, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED", "DS_ACCELERATOR"):  # as at home
        monkeypatch.delenv(name, raising=False)
    screen = run_on(kind, root / "jobs" / "demo.py", *FEW, folder=tmp_path, cwd=tmp_path, timeout=1500)
    assert screen.code == 0, screen.seen[-3000:]
    assert screen.seen == f"{screen.said}what libraries printed is in {screen.log}\n"
    assert "[6/6] serve" in screen.said
    assert (tmp_path / "demo" / "report.json").is_file()
