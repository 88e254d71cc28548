"""A dead proxy of Ray Serve is noticed after three seconds, not thirty: on a Ray that is started here, and on what cluster/ starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reid_ray.runtime import PROXY_CHECKS

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.slow
def test_ray_serve_reads_what_a_ray_that_is_started_here_is_given():
    code = "from ray.serve._private.constants import PROXY_HEALTH_CHECK_PERIOD_S, PROXY_HEALTH_CHECK_UNHEALTHY_THRESHOLD as looks\n"
    code += "print(PROXY_HEALTH_CHECK_PERIOD_S * looks)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | PROXY_CHECKS, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 5


def test_a_cluster_over_slurm_has_the_same():
    script = (ROOT / "cluster" / "slurm" / "ray.sbatch").read_text()
    assert all(f"{name}={value}" in script for name, value in PROXY_CHECKS.items())
