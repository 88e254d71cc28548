"""Kills in long series: what the short form of each kill test shows once, tens of times and at random moments."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("engine", "kills", "every_s"), [("scripted", 30, 8), ("vllm", 8, 30)])
def test_no_kill_at_a_random_moment_loses_doubles_or_ages_a_row(root, tmp_path, engine, kills, every_s):
    out = tmp_path / "kills.json"
    command = [sys.executable, "benchmarks/caption_kills.py", "--engine", engine, "--kills", str(kills), "--every", str(every_s)]
    done = subprocess.run(
        [*command, "--state", str(tmp_path / "state"), "--out", str(out)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    total = json.loads(out.read_text())["rows"][-1]
    assert sum(total[f"{kind} kills"] for kind in ("caption actor", "driver", "raylet of the second node")) >= kills
    assert [total[name] for name in ("lost", "duplicated", "stale", "other_text", "quarantined")] == [0, 0, 0, 0, 0]
