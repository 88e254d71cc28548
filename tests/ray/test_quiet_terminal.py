"""A job with a Ray and actors of its own, as a person at a terminal sees it; the whole demo, with vLLM: tests/soak/test_terminal.py."""

import pytest
from screen import run_on

pytestmark = pytest.mark.slow


def test_a_job_on_its_own_ray_shows_its_own_lines_and_bars_alone(root, tmp_path, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):  # as at home: Ray says what it thinks of the latter
        monkeypatch.delenv(name, raising=False)
    people = "images.synthetic={identities: 2, images_per_identity: 2}"
    encoder = "encoder=builtin:tiny-encoder"
    arguments = ("images.source=synthetic", people, encoder, "ray.execution=ray", f"output.path={tmp_path}/index")
    screen = run_on("terminal", root / "jobs" / "index.py", *arguments, folder=tmp_path)
    assert screen.code == 0, screen.seen[-3000:]
    assert screen.seen == f"{screen.said}what libraries printed is in {screen.log}\n"
    assert "index: read 4, written 4" in screen.said
    assert "\rindex" in screen.said
    assert screen.log.stat().st_mode & 0o777 == 0o600
    assert "local Ray" in screen.log.read_text()
