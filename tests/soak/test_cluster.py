"""The Slurm script on two nodes, each with its own address, processes, temporary folder and home; srun is a stand-in.

A hub's model is fetched once on each.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from fake_hub import fake_hub
from machines import NET, machines, missing

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

REPORT = """
import ray
from reid_ray.caption.config import CaptionerConfig
from reid_ray.model.hub_models import fetch_models

ray.init()
print("nodes", sum(node["Alive"] for node in ray.nodes()), ray.cluster_resources()["CPU"])
captioner = CaptionerConfig(model="people/describer")
fetch_models({f"captioners.{name}": (captioner, captioner.pool) for name in ("one", "other")})
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
        (programs / "report.py").write_text(REPORT)
        slurm = {"SLURM_JOB_NODELIST": "x", "SLURM_CPUS_PER_TASK": "3", "SLURM_JOB_ID": "42", "RAY_START_LIMIT_S": "120"}
        extra = {**slurm, "PYTHONPATH": str(programs), "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin"}
        extra["PYTHONPATH"] += f":{root}"
        begin = time.monotonic()
        with fake_hub("people/describer", {"config.json": b"{}", "model.safetensors": bytes(1 << 20)}, host=f"{NET}.254") as hub:
            extra |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1"}
            done = network.run("head", "bash", str(programs / "ray.sbatch"), "python", str(programs / "report.py"), extra=extra)
        assert done.returncode == 0, done.stdout
        assert "nodes 2 6.0" in done.stdout
        assert hub.downloads == {"config.json": 2, "model.safetensors": 2}, "a model is fetched once on each node"
        assert not any(network.shared.glob("machines/*/tmp/ray-42")), "left behind"
        print(f"two nodes by the Slurm script: {time.monotonic() - begin:.0f} s")
