import subprocess
import sys
import time

import pytest

from reid_ray.measure import PeakMemory

pytestmark = pytest.mark.slow


def test_peak_sees_memory_of_a_child_that_is_gone_at_the_end():
    with PeakMemory(interval_s=0.05) as peak:
        before = peak.bytes
        code = "x = bytearray(200 << 20); import time; print('held', flush=True); time.sleep(5)"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"held\n"
        time.sleep(0.5)
        child.kill()
        child.wait()
    assert peak.bytes - before > 150 << 20
