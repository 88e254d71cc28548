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
# which a scripted engine is called through; of vLLM's actors it only tells the texts of what is asked
DOUBLES = {"caption/engines/protocol.py"}
VLLM = {f"caption/engines/{name}.py" for name in ("vllm_engine", "vllm_arguments", "adapters", "kv_cache", "rendering")}


def listed(job):
    """Process -> its files, as the page has them."""
    section = (ROOT / "docs" / "architecture.md").read_text().partition(f"\n### {job}\n")[2].partition("\n### ")[0]
    parts = re.split(r"\n\*\*(.+)\*\*\n", section)
    return {name: re.findall(r"^\d+\. `([\w/]+\.py)`", text, re.MULTILINE) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def traced(file):
    """Job -> driver, task or actor, and which -> thread -> the files that were called into first by it, in its order.

    What a task or an actor does counts for the job in which it began, even if it outlives it.
    """
    jobs, job, begun = {}, None, {}
    for _, kind, which, thread, name, _ in sorted(json.loads(line) for line in file.read_text().splitlines()):
        if kind == "begin":
            job = jobs[name] = {}
        elif job is not None and name.split("/")[0].removesuffix(".py") not in NOT_LISTED and not name.endswith("/config.py"):
            own = job if which is None else begun.setdefault(which, job)
            own.setdefault((kind, which), {}).setdefault(thread, []).append(name)
    return jobs


def run(folder, *options):
    """The jobs' trace; one run for all tests, by whichever asks first."""
    trace = folder / "trace"
    environment = {**os.environ, "REID_RAY_CALL_TRACE": str(trace)}  # whose PYTHONPATH begins with at_start/
    command = [sys.executable, str(ROOT / "tests" / "shared" / "traced_jobs.py"), str(folder), *options]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return traced(trace)


def as_listed(threads, page):
    """The page's list, if it has the files of these threads and each thread called into its own in that order; else what was called.

    Which of two threads is first, nothing but the machine's load decides.
    """
    files = [file for own in threads for file in own]
    place = {file: number for number, file in enumerate(page)}
    if place.keys() == set(files) and all(own == sorted(own, key=place.get) for own in threads):
        return page
    return list(dict.fromkeys(files))


def compare(job, found, *, without=frozenset()):
    page = listed(job)
    driver, tasks = page.pop("Driver"), page.pop("Reading tasks", page.pop("Tasks", []))
    assert as_listed(found.pop(("driver", None)).values(), driver) == driver
    assert as_listed([own for (kind, _), threads in found.items() if kind == "task" for own in threads.values()], tasks) == tasks
    actors = [tuple(file for file in files if file not in without) for files in page.values()]
    seen = set()
    for (kind, _), threads in found.items():
        own = [[file for file in files if file not in DOUBLES] for files in threads.values()]
        if kind == "actor" and any(own):
            seen.add(next((actor for actor in actors if as_listed(own, list(actor)) == list(actor)), tuple(map(tuple, own))))
    assert seen == set(actors)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return run(tmp_path_factory.mktemp("traced"))


@pytest.mark.parametrize("job", JOBS)
def test_a_run_calls_into_the_files_that_the_page_lists_in_that_order(trace, job):
    compare(job, dict(trace[job]), without=VLLM)


def test_threads_and_workers_that_overlap_change_no_list_and_another_order_within_one_does(tmp_path):
    calls = [
        [1, "begin", None, None, "caption", None],
        [2, "driver", None, 7, "caption/job.py", "f"],
        [4, "actor", "a", 1, "caption/rows.py", "f"],
        [5, "begin", None, None, "train", None],
        [6, "driver", None, 7, "train/run.py", "f"],
        [8, "actor", "a", 2, "caption/tally.py", "f"],  # of a job that is over
        [9, "driver", None, 8, "data/images.py", "f"],
        [10, "driver", None, 7, "train/loop.py", "f"],
    ]
    file = tmp_path / "trace"
    file.write_text("".join(json.dumps(call) + "\n" for call in reversed(calls)))
    found = traced(file)
    assert list(found["train"]) == [("driver", None)]
    threads = found["train"]["driver", None].values()
    for page in (["train/run.py", "data/images.py", "train/loop.py"], ["train/run.py", "train/loop.py", "data/images.py"]):
        assert as_listed(threads, page) == page
    for page in (["train/loop.py", "train/run.py", "data/images.py"], ["train/run.py", "train/loop.py"]):
        assert as_listed(threads, page) == ["train/run.py", "train/loop.py", "data/images.py"]
    assert found["caption"]["actor", "a"] == {1: ["caption/rows.py"], 2: ["caption/tally.py"]}


@pytest.mark.soak("page_commands")
def test_a_run_with_vllm_calls_into_the_files_that_the_page_lists_in_that_order(tmp_path):
    found = run(tmp_path, "--vllm")
    for job in JOBS:
        compare(job, dict(found[job]))
