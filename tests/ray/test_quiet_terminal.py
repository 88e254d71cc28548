"""A caption job with a Ray, an engine and actors of its own, as a person at a terminal sees it."""

import pytest
from screen import run_on

pytestmark = pytest.mark.slow


def test_a_job_on_its_own_ray_shows_its_own_lines_and_bars_alone(root, tmp_path, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):  # as at home: Ray says what it thinks of the latter
        monkeypatch.delenv(name, raising=False)
    people = "images.synthetic={identities: 2, images_per_identity: 2}"
    arguments = ("images.source=synthetic", people, "rewriter.share=0", f"output.path={tmp_path}/captions")
    screen = run_on("terminal", root / "jobs" / "caption.py", *arguments, folder=tmp_path)
    assert screen.code == 0, screen.seen[-3000:]
    assert screen.seen == f"{screen.said}what libraries printed is in {screen.log}\n"
    assert "caption: images: read 4, written 4" in screen.said
    assert "\rcaption" in screen.said
    assert screen.log.stat().st_mode & 0o777 == 0o600
    assert "local Ray" in screen.log.read_text()
