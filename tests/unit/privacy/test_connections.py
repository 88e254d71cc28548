"""No job opens a connection that was not asked for: with the network cut off jobs do their work, and libraries' reports are off."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from reid_ray.config import load_config
from reid_ray.data.export.config import ExportJob
from reid_ray.data.export.job import run_export
from reid_ray.data.ingest.config import IngestJob
from reid_ray.data.ingest.job import run_ingest
from reid_ray.data.lint.config import LintJob
from reid_ray.data.lint.job import run_lint
from reid_ray.data.synthetic.config import SynthesizeJob
from reid_ray.data.synthetic.job import run_synthesize
from reid_ray.records import EMBEDDINGS, table_of
from reid_ray.retrieval.compare.config import CompareJob
from reid_ray.retrieval.compare.job import run_compare
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.job import run_evaluate
from reid_ray.telemetry import OPT_OUT


@pytest.fixture
def attempts(monkeypatch) -> list[str]:
    """Which hosts somebody tried to reach; none is reached."""
    tried: list[str] = []

    def refuse(name):
        def call(*arguments, **_):
            address = arguments[1] if isinstance(arguments[0], socket.socket) else arguments[0]
            if isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX:
                return getattr(original, name)(*arguments)
            tried.append(f"{name} {address}")
            raise OSError("the network is cut off")

        return call

    original = socket.socket

    class Cut(socket.socket):
        connect, connect_ex, sendto = (refuse(name) for name in ("connect", "connect_ex", "sendto"))

    monkeypatch.setattr(socket, "socket", Cut)
    monkeypatch.setattr(socket, "getaddrinfo", refuse("getaddrinfo"))
    return tried


def embeddings(path, kind: str, seed: int) -> str:
    vectors = np.eye(8, 16, dtype=np.float32) + 0.1 * np.random.default_rng(seed).standard_normal((8, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        {
            "item_id": f"{kind}{n}",
            "kind": kind,
            "embedding": vector.tolist(),
            "status": "ok",
            "image_id": f"{n}",
            "person_id": n,
            "split": "test",
        }
        for n, vector in enumerate(vectors)
    ]
    pq.write_table(table_of(EMBEDDINGS, rows), path)
    return str(path)


@pytest.mark.slow
def test_jobs_do_their_work_without_a_network_and_do_not_try_to_reach_one(tmp_path, attempts):
    made, tables = tmp_path / "made", tmp_path / "tables"
    run_synthesize(load_config(SynthesizeJob, None, ["people.identities=6", f"output.path={made}"]))
    source = ["source.format=parquet", f"source.path={made}/images", f"source.captions={made}/captions", "load.processes=1"]
    run_ingest(load_config(IngestJob, None, [*source, f"output.path={tables}"]))
    run_lint(load_config(LintJob, None, [*source, f"output.path={tmp_path / 'lint'}"]))
    run_export(load_config(ExportJob, None, [f"tables={tables}", "format=webdataset",
                                             f"output.path={tmp_path / 'export'}"]))  # fmt: skip
    gallery = embeddings(tmp_path / "gallery.parquet", "image", 0)
    for name in ("a", "b"):
        queries = embeddings(tmp_path / f"{name}.parquet", "text", ord(name))
        run_evaluate(load_config(EvaluateJob, None, [f"query_embeddings={queries}", f"gallery_embeddings={gallery}",
                                                     f"output.path={tmp_path / name}"]))  # fmt: skip
    run_compare(load_config(CompareJob, None, [f"baseline={tmp_path}/a", f"candidate={tmp_path}/b", f"output.path={tmp_path}/compared"]))
    assert attempts == []
    with pytest.raises(OSError, match="cut off"):
        socket.create_connection(("example.org", 80))
    assert attempts == ["getaddrinfo example.org"]


LOOK = """
import os, reid_ray
print({name: os.environ.get(name) for name in %r})
from ray._common.usage.usage_lib import usage_stats_enabled
from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY
import vllm.envs
print(usage_stats_enabled(), HF_HUB_DISABLE_TELEMETRY, vllm.envs.VLLM_NO_USAGE_STATS, vllm.envs.VLLM_DO_NOT_TRACK)
"""


@pytest.mark.slow
def test_the_libraries_that_report_their_use_are_silent_in_every_process_that_imports_the_package():
    clean = {name: value for name, value in os.environ.items() if name not in OPT_OUT}
    done = subprocess.run([sys.executable, "-c", LOOK % [*OPT_OUT]], env=clean, capture_output=True, text=True, check=True, timeout=300)
    first, second = done.stdout.strip().splitlines()[-2:]
    assert first == str(OPT_OUT)
    assert second == "False True True True"


def test_whoever_wants_a_report_gets_one(monkeypatch):
    code = "import os, reid_ray; print(os.environ['RAY_USAGE_STATS_ENABLED'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "1"
