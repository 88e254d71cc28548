"""The jobs as a cluster user runs them: `ray start --head`, then `ray job submit --working-dir .` of a fresh copy of the code."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from kills import kill_family

from reid_ray.storage import read_manifest

pytestmark = pytest.mark.slow

RAY = Path(sys.executable).parent / "ray"


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head node of its own, with 4 logical CPUs; its address for `ray job submit`. Gone, with all it started, at the end."""
    gcs, dashboard, agent, client = free_ports(4)
    temporary = Path("/tmp") / f"rr{os.getpid()}"  # Ray's sockets need a short path
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    environment["REID_RAY_LOGS"] = str(tmp_path_factory.mktemp("logs"))
    environment["PATH"] = f"{RAY.parent}{os.pathsep}{environment['PATH']}"  # the entrypoint's python is the environment's, as on a node
    environment["REID_RAY_WARM_WORKERS"] = ""  # workers start as Ray starts them
    environment.pop("RAY_ADDRESS", None)
    log = (tmp_path_factory.mktemp("head") / "head.log").open("w+")
    options = {
        "num-cpus": 4,
        "object-store-memory": 500_000_000,
        "port": gcs,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "temp-dir": temporary,
    }
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--disable-usage-stats", *(f"--{name}={value}" for name, value in options.items())],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_until_up(address, head, log)
        yield {**environment, "RAY_ADDRESS": address}
    finally:
        kill_family(head, patience_s=30)  # asked to end, Ray's processes take half a minute
        shutil.rmtree(temporary, ignore_errors=True)
        log.close()


def _wait_until_up(address: str, head: subprocess.Popen, log) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and head.poll() is None:
        try:
            if httpx.get(f"{address}/api/version", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    log.seek(0)
    pytest.fail(f"ray start did not come up: {log.read()[-3000:]}")


def submit(cluster: dict[str, str], root: Path, *entrypoint: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [RAY, "job", "submit", "--working-dir", ".", "--", "python", *entrypoint],
        cwd=root,
        env=cluster,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def people(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "people"
    size = ["people.identities=24", "people.images_per_identity=2", f"output.path={folder}"]
    subprocess.run([sys.executable, root / "jobs/synthesize.py", *size], check=True, timeout=120)
    return folder


def submitted_and_recorded(cluster, root, tmp_path, *entrypoint):
    """What a submitted job wrote to its terminal, of which `ray job submit` shows all and no word more."""
    record = tmp_path / "record"
    done = submit(cluster, root, "tests/shared/recorded.py", str(record), *entrypoint)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{record.read_text()}what libraries printed is in {cluster['REID_RAY_LOGS']}/" in done.stdout
    return record.read_text()


@pytest.mark.soak("cluster")
def test_caption_runs_by_ray_job_submit(cluster, root, people, tmp_path):
    captions = tmp_path / "captions"
    few = ["images.source=parquet", f"images.path={people}/images", "images.limit=8", "rewriter.share=0"]
    said = submitted_and_recorded(cluster, root, tmp_path, "jobs/caption.py", *few, f"output.path={captions}")
    counts = read_manifest(captions)["counts"]
    assert counts["read"] == counts["written"] + sum(counts["failed"].values()) == 8
    assert "caption: images: read 8" in said


def test_train_runs_by_ray_job_submit(cluster, root, people, tmp_path):
    model = tmp_path / "model"
    data = [f"images.path={people}/images", f"captions.paths=[{people}/captions]", "batches.size=8", "schedule.max_steps=4"]
    train = ["jobs/train.py", "--config=jobs/configs/train/train.yaml", *data, f"output.path={model}"]
    said = submitted_and_recorded(cluster, root, tmp_path, *train)
    assert (model / "model" / "model.safetensors").is_file()
    assert read_manifest(model)["facts"]["workers"] == 2
    assert "train: " in said


def test_a_job_that_a_user_can_mend_fails_the_submission_with_one_sentence(cluster, root):
    done = submit(cluster, root, "jobs/caption.py", "images.sorce=folder", "output.path=runs/never")
    assert done.returncode != 0
    assert "images.sorce: unknown key" in done.stdout + done.stderr
    assert "output.path: is relative to the working directory" in done.stdout + done.stderr  # Ray unpacks and deletes it
    assert "Traceback" not in done.stdout.split("images.sorce")[0]
