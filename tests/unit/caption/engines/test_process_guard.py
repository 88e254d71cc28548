"""What a guarded process started ends with it, children's children too, and nobody else's processes do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

CHILD = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
ACTOR = f"""
import subprocess, sys, time
from reid_ray.caption.engines.process_guard import guard_what_is_started
before = subprocess.Popen(['sleep', '60'])
guard_what_is_started()
guard_what_is_started()
child = subprocess.Popen([sys.executable, '-c', {CHILD!r}], stdout=subprocess.PIPE, text=True, start_new_session=True)
print(before.pid, child.pid, int(child.stdout.readline()), flush=True)
time.sleep(60)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow  # it waits
def test_no_process_outlives_a_guarded_one_that_is_killed():
    actor = subprocess.Popen([sys.executable, "-c", ACTOR], stdout=subprocess.PIPE, text=True)
    before, child, grandchild = map(int, actor.stdout.readline().split())
    time.sleep(1)
    assert alive(child)
    assert alive(grandchild)
    actor.kill()
    actor.wait()
    deadline = time.monotonic() + 20
    while (alive(child) or alive(grandchild)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(child)
    assert not alive(grandchild)
    assert alive(before)  # it was there before the guard
    os.kill(before, 9)
