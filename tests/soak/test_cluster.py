"""The Slurm script on two nodes, each with its own address, processes, temporary folder and home; srun is a stand-in.

A hub's model is fetched once on each; replicas of a service are on both, or where it starts.
"""

from __future__ import annotations

import json
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


SEARCHING = """
import json, sys, threading, time
from pathlib import Path

import ray
from ray import serve

from reid_ray.gallery.gallery_writer import create_gallery
from reid_ray.model.dual.config import ModelConfig
from reid_ray.model.dual.dual_encoder import build_dual_encoder
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import start_service

ray.init(log_to_driver=False)
folder = Path(sys.argv[1])
shape = {"vision_width": 32, "vision_layers": 2, "text_width": 32, "text_layers": 2, "embed_dim": 16, "vocab_size": 300, "context": 16}
encoder = build_dual_encoder(ModelConfig(image_height=64, image_width=32, scratch=shape), ["a red coat", "a blue coat"])
encoder.save(folder / "model", {})
create_gallery(folder / "gallery", dim=encoder.dim, encoder=encoder.fingerprint)


def job(ingress, encoders=None, **searcher):
    job = {"index": str(folder / "gallery"), "encoder": str(folder / "model"), "runs_on": "ray"}
    job |= {"serve": {"port": 0, "ingress": ingress}, "access": {"searches_per_s": None}, "searcher": {"num_cpus": 1, **searcher}}
    return ServeJob.model_validate(job | {"encoders": encoders or {}})


def replicas(kind=":Replica"):
    actors = [each for each in ray._private.state.actors().values() if each["State"] == "ALIVE" and each["ActorClassName"].endswith(kind)]
    return sorted(each["Address"]["IPAddress"] for each in actors)


def said(*words):
    print("SAID", json.dumps(words), flush=True)


def search(url, seconds):
    with SearchClient(url) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert client.search(text="a red coat", k=1)["hits"] == []


def grown(url, kind):
    # where replicas are once there are two, or after 90 s, under eight clients
    askers = [threading.Thread(target=search, args=(url, 100)) for _ in range(8)]
    for asker in askers:
        asker.start()
    end = time.monotonic() + 90
    while len(replicas(kind)) < 2 and time.monotonic() < end:
        time.sleep(0.5)
    found = replicas(kind)
    for asker in askers:
        asker.join()
    return found


"""

SERVICES = """
for ingress in (None, "direct"):
    with start_service(job(ingress, replicas=3)) as service:
        search(service.url, 1)
        said(ingress, replicas(), len(serve.status().proxies))
with start_service(job("direct", max_replicas=2, target_ongoing_requests=1)) as service:
    said("grown", grown(service.url, ":Replica"), len(serve.status().proxies))
try:
    start_service(job("direct", replicas=4))
except Exception as error:
    said("refused", f"{type(error).__name__}: {error}")
"""

ENCODERS = """
with start_service(job("direct", {"replicas": 1, "max_replicas": 2, "num_cpus": 2, "target_ongoing_batches": 0.5})) as service:
    search(service.url, 1)
    said("at first", replicas(":Encoder"), replicas())
    said("grown", grown(service.url, ":Encoder"), replicas())
"""


def by_slurm(network, root, names, script, **extra):
    """A script of Python's, by cluster/slurm/ray.sbatch, on the first of two nodes with three CPUs each."""
    programs = network.shared / "bin"
    programs.mkdir()
    stand_in = STAND_IN.format(python=sys.executable, names=names, shared=str(network.shared), tag=network.tag)
    (programs / "srun").write_text(stand_in)
    (programs / "scontrol").write_text("#!/bin/sh\nprintf 'head\nworker\n'\n")
    for name in ("cluster/slurm/ray.sbatch", "tests/shared/machines.py"):  # what lies in this machine's /tmp is not in the nodes'
        (programs / Path(name).name).write_text((root / name).read_text())
    for program in programs.iterdir():
        program.chmod(0o755)
    (programs / "script.py").write_text(script)
    slurm = {"SLURM_JOB_NODELIST": "x", "SLURM_CPUS_PER_TASK": "3", "SLURM_JOB_ID": "42", "RAY_START_LIMIT_S": "120"}
    paths = {"PYTHONPATH": f"{programs}:{root}", "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin"}
    command = ("bash", str(programs / "ray.sbatch"), "python", str(programs / "script.py"), str(network.shared))
    done = network.run("head", *command, extra={**slurm, **paths, **extra}, timeout=600)
    assert done.returncode == 0, done.stdout
    assert not any(network.shared.glob("machines/*/tmp/ray-42")), "left behind"
    return done.stdout


def services_said(network, root, names, script):
    """What a script said of services, and all that it printed."""
    said = by_slurm(network, root, names, SEARCHING + script)
    return [json.loads(line.removeprefix("SAID")) for line in said.splitlines() if line.startswith("SAID")], said


def test_the_slurm_script_runs_a_command_on_a_cluster_of_two_nodes(root):
    names, begin = ["head", "worker"], time.monotonic()
    files = {"config.json": b"{}", "model.safetensors": bytes(1 << 20)}
    with machines(*names) as network, fake_hub("people/describer", files, host=f"{NET}.254") as hub:
        said = by_slurm(network, root, names, REPORT, HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_XET="1")
        assert "nodes 2 6.0" in said
        assert hub.downloads == {"config.json": 2, "model.safetensors": 2}, "a model is fetched once on each node"
    print(f"two nodes by the Slurm script: {time.monotonic() - begin:.0f} s")


def test_replicas_that_listen_by_themselves_stay_where_the_service_starts_and_grow_with_its_searches(root):
    names = ["head", "worker"]
    with machines(*names) as network:
        head, worker = (network.address(name) for name in names)
        found, said = services_said(network, root, names, SERVICES)
    assert len(found) == 4, said
    by_proxy, direct, grown, refused = found
    assert (by_proxy[0], set(by_proxy[1]), len(by_proxy[1]), by_proxy[2]) == (None, {head, worker}, 3, 2), said
    assert direct == ["direct", [head] * 3, 0]
    assert grown == ["grown", [head] * 2, 0]
    assert refused[1].startswith("ResourceError: the job needs 4 CPU (searcher 4 x 1), but the cluster has 3;")


def test_encoders_are_on_any_node_and_grow_with_the_batches_in_hand(root):
    names = ["head", "worker"]
    with machines(*names) as network:
        head, worker = (network.address(name) for name in names)
        found, said = services_said(network, root, names, ENCODERS)
    (_, first, searcher), (_, both, still) = found
    assert len(first) == 1, said
    assert set(first) <= {head, worker}
    assert searcher == still == [head]
    assert both == sorted([head, worker]), said
