"""Caption, train, evaluate, index and serve call into the files that the page on the architecture lists, in that order.

The jobs run in one process with one Ray, and each of its processes is traced (tests/shared/at_start/call_trace.py).
"""

import json
import os
import re
import subprocess
import sys

import pytest
from test_layering import LEAVES, ROOT

pytestmark = pytest.mark.slow

JOBS = ["caption", "train", "evaluate", "index", "serve"]
NOT_LISTED = {*LEAVES, "setup", "model", "gallery"}
# of actors, where a scripted engine answers
# which a scripted engine is called through, and vLLM is not
DOUBLES = {"caption/engines/protocol.py"}
VLLM = {f"caption/engines/{name}.py" for name in ("vllm_engine", "vllm_arguments", "adapters", "kv_cache")}
ENGINES = {"caption/actors/configured_engine.py", *VLLM}


def listed(job):
    """Process -> its files, as the page has them."""
    section = (ROOT / "docs" / "architecture.md").read_text().partition(f"\n### {job}\n")[2].partition("\n### ")[0]
    parts = re.split(r"\n\*\*(.+)\*\*\n", section)
    return {name: re.findall(r"^\d+\. `([\w/]+\.py)`", text, re.MULTILINE) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def traced(file):
    """Job -> the files of the driver, of its tasks, and of each actor."""
    jobs, job = {}, None
    for _, kind, which, name, _ in sorted(json.loads(line) for line in file.read_text().splitlines()):
        if kind == "begin":
            job = jobs[name] = {}
        elif job is not None and name.split("/")[0].removesuffix(".py") not in NOT_LISTED and not name.endswith("/config.py"):
            files = job.setdefault((kind, which if kind == "actor" else None), [])
            if name not in files:
                files.append(name)
    return jobs


def run(folder, *options):
    """The jobs' trace; one run for all tests, by whichever asks first."""
    trace = folder / "trace"
    environment = {**os.environ, "REID_RAY_CALL_TRACE": str(trace)}  # whose PYTHONPATH begins with at_start/
    command = [sys.executable, str(ROOT / "tests" / "shared" / "traced_jobs.py"), str(folder), *options]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return traced(trace)


def compare(job, found, *, without=frozenset()):
    page = listed(job)
    driver, tasks = page.pop("Driver"), page.pop("Reading tasks", page.pop("Tasks", []))
    assert found.pop(("driver", None)) == driver
    assert found.pop(("task", None), []) == tasks
    actors = {tuple(file for file in files if file not in DOUBLES) for files in found.values() if files}
    assert actors == {tuple(file for file in files if file not in without) for files in page.values()}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return run(tmp_path_factory.mktemp("traced"))


@pytest.mark.parametrize("job", JOBS)
def test_a_run_calls_into_the_files_that_the_page_lists_in_that_order(trace, job):
    compare(job, dict(trace[job]), without=ENGINES)


@pytest.mark.soak("page_commands")
def test_a_run_with_vllm_calls_into_the_files_that_the_page_lists_in_that_order(tmp_path):
    found = run(tmp_path, "--vllm")
    for job in JOBS:
        compare(job, dict(found[job]))
