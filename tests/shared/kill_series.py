"""A benchmark of kills as a test: the harness runs in a process of its own, and its report is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def total_of(root, tmp_path, *command, kills, held, limit_s):
    """The last row, over all jobs, of a harness's report after so many kills, of which none costs more than its actors `held`.

    The share of the work that is done twice says how little is done between two kills on a busy machine, so a kill is judged by itself.
    """
    out = tmp_path / "kills.json"
    done = subprocess.run(
        [sys.executable, *command, "--kills", str(kills), "--state", str(tmp_path / "state"), "--out", str(out)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert out.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(out.read_text())
    assert [claim for claim in report["claims"] if not claim["holds"] and not claim["name"].startswith("share of ")] == []
    total = report["rows"][-1]
    made = sum(count for name, count in total.items() if name.endswith(" kills"))
    assert made >= kills
    assert total["asked"] - total["needed"] <= held * made
    return total
