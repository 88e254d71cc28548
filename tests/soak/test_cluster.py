"""The Slurm script on two nodes, each with its own address, processes, temporary folder and home; srun is a stand-in."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from machines import machines, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

STAND_IN = """#!{python}
import os, pathlib, sys
from machines import Machines
arguments = sys.argv[1:]
options = [arguments.pop(0) for _ in range(next(at for at, each in enumerate(arguments) if not each.startswith("--")))]
node = next(each.partition("=")[2] for each in options if each.startswith("--nodelist="))
made = Machines({names}, pathlib.Path({shared!r}), {tag!r})
if arguments[0] == "hostname":
    arguments = ["echo", made.address(node)]
elif node != "head":  # the batch script is on the head already
    arguments = made.command(node, arguments)
os.execvpe(arguments[0], arguments, dict(os.environ, HOME=str(made.home(node))))
"""


def test_the_slurm_script_runs_a_command_on_a_cluster_of_two_nodes(root):
    names = ["head", "worker"]
    with machines(*names) as network:
        programs = network.shared / "bin"
        programs.mkdir()
        stand_in = STAND_IN.format(python=sys.executable, names=names, shared=str(network.shared), tag=network.tag)
        (programs / "srun").write_text(stand_in)
        (programs / "scontrol").write_text("#!/bin/sh\nprintf 'head\\nworker\\n'\n")
        for name in ("cluster/slurm/ray.sbatch", "tests/shared/machines.py"):  # what lies in this machine's /tmp is not in the nodes'
            (programs / Path(name).name).write_text((root / name).read_text())
        for program in programs.iterdir():
            program.chmod(0o755)
        report = "import ray; ray.init(); print('nodes', sum(n['Alive'] for n in ray.nodes()), ray.cluster_resources()['CPU'])"
        slurm = {"SLURM_JOB_NODELIST": "x", "SLURM_CPUS_PER_TASK": "3", "SLURM_JOB_ID": "42", "RAY_START_LIMIT_S": "120"}
        extra = {**slurm, "PYTHONPATH": str(programs), "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin"}
        begin = time.monotonic()
        done = network.run("head", "bash", str(programs / "ray.sbatch"), "python", "-c", report, extra=extra)
        assert done.returncode == 0, done.stdout
        assert "nodes 2 6.0" in done.stdout
        assert not any(network.shared.glob("machines/*/tmp/ray-42")), "left behind"
        print(f"two nodes by the Slurm script: {time.monotonic() - begin:.0f} s")
