"""The kill harness in its short form: an actor, the driver and a second node's raylet die once each, and no row is the worse for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_killing_an_actor_the_driver_and_a_node_loses_doubles_and_ages_no_row(root, tmp_path):
    command = [sys.executable, "benchmarks/caption_kills.py", "--quick", "--engine", "scripted", "--out", str(tmp_path / "kills.json")]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    total = json.loads((tmp_path / "kills.json").read_text())["rows"][-1]
    assert [total[f"{kind} kills"] for kind in ("caption actor", "driver", "raylet of the second node")] == [1, 1, 1]
    assert [total[name] for name in ("rows", "lost", "duplicated", "stale", "other_text", "quarantined")] == [640, 0, 0, 0, 0, 0]
