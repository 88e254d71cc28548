"""What the whole test session shares: one local Ray, real crops where a folder of them is named, and which tests are soak tests."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import resource
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# Ray's workers read from the tests' own S3 server with what they find here.
os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
os.environ.setdefault("REID_RAY_LOGS", "show")  # what a job that fails here said is in the test's report
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Of pytest's workers each has its share of the cores: threads of torch that wait for a core that another has spin meanwhile.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // int(workers))))

ROOT = Path(__file__).resolve().parents[1]
# What every process that the tests start does first: pytest's own workers, Ray's, and the commands that are tried.
AT_START = ROOT / "tests" / "shared" / "at_start"
if AT_START.name not in os.environ.get("PYTHONPATH", ""):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(AT_START), os.environ.get("PYTHONPATH")]))
# The part of the soak tests that tries what the other tests say of random inputs on many more of them.
PROPERTIES = "properties"
# Files whose tests ask for `engines`.
SHARE_ENGINES = ("tests/ray/test_engine.py", "tests/ray/test_tiny_mllm.py", "tests/ray/test_tune.py")
# `make test-fast` runs what this expression chooses. Of its tests each takes a tenth of a second of CPU on the machine on which the slow
# ones were marked, and fails where it takes ten times as much.
QUICK, QUICK_CPU_S = "not slow", 1.0
WHOLLY_SLOW = re.compile(r"^pytestmark = .*\bmark\.slow\b", re.MULTILINE)
# What every worker of Ray Data imports, but for Ray itself.
TABLES = [
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "jsonschema",
    "click",
    "google.protobuf.json_format",
    "google.protobuf.struct_pb2",
    "google.protobuf.timestamp_pb2",
    "pydantic.v1",
    "starlette.datastructures",
    "uvloop",
    "wcwidth",
    "PIL.MpoImagePlugin",
    "PIL.PdfImagePlugin",
]
# What Ray's workers have imported when they begin, by what they are, and the variables that our code sets before an import of vLLM.
IMPORTS = {
    "worker": [
        "torchvision.transforms.v2",
        "transformers.models.clip.modeling_clip",
        "transformers.models.auto.processing_auto",
        "deepspeed",
        "peft",
        "diffusers.models.unets.unet_2d_condition",
        "numba",
        *TABLES,
    ],
    "engine": [
        "torchvision",
        "vllm.entrypoints.llm",
        "vllm.v1.worker.gpu_model_runner",
        "vllm.model_executor.model_loader",
        "vllm.model_executor.layers.quantization.online.base",
        "vllm.model_executor.models.qwen2_5_vl",
        "vllm.v1.attention.backends.cpu_attn",
        "vllm.v1.core.sched.scheduler",
        "vllm.v1.worker.cpu_worker",
        "vllm.entrypoints.launchers.cli_args",
        "transformers.models.bert.modeling_bert",
        "transformers.models.llama.modeling_llama",
        "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
        "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
        "mistral_common.tokens.tokenizers.mistral",
        "timm.data",
        *TABLES,
    ],
}
BEFORE_IMPORTS = {"worker": {}, "engine": {"VLLM_LOGGING_CONFIG_PATH": str(ROOT / "reid_ray" / "assets" / "vllm_logging.json")}}
# Temporary folders of tests lie in memory where it has the room: outputs are flushed to the disk file by file, and a test that kills a
# process before each of a commit's calls waits for a disk some thousand times. What a dead process has written is the same on both.
MEMORY, ROOM = Path("/dev/shm"), 6 << 30


def pytest_addoption(parser):
    parser.addoption("--soak", metavar="PART", help="run this part of the soak tests, or all of them, and nothing else")


def pytest_configure(config):
    if config.getoption("--soak") == PROPERTIES:
        os.environ["TEST_EXAMPLES_TIMES"] = "20"
    elif config.option.markexpr == QUICK:
        os.environ.setdefault("TEST_EXAMPLES_TIMES", "0.2")
    if config.getoption("--soak") is None and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if "HF_HOME" not in os.environ:  # no test reads the user's models, nor leaves any there
        os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hub-", dir="/tmp")
        config.add_cleanup(lambda: shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True))
    if config.getoption("--soak") is None and not hasattr(config, "workerinput"):
        _start_ray_workers_warm(config)


def _start_ray_workers_warm(config):
    """Ray's workers fork from processes that have imported much already (shared/at_start/warm_workers.py).

    Not where the variable is there, empty, and not beside a GPU, whose driver does not survive a fork.
    """
    if "REID_RAY_WARM_WORKERS" in os.environ or Path("/dev/nvidiactl").exists():
        return
    folder = Path(tempfile.mkdtemp(prefix="warm-", dir="/tmp"))  # a socket's path is short
    settings = folder / "settings.json"
    settings.write_text(json.dumps({"owner": os.getpid(), "imports": IMPORTS, "variables": BEFORE_IMPORTS}))
    os.environ["REID_RAY_WARM_WORKERS"] = str(settings)
    config.add_cleanup(lambda: shutil.rmtree(folder))


def pytest_ignore_collect(collection_path, config):
    """The quick tier does not import a file whose tests are all slow, nor what that imports."""
    if config.option.markexpr == QUICK and collection_path.match("test_*.py") and WHOLLY_SLOW.search(collection_path.read_text()):
        return True
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Soak tests run where they are asked for, part by part (soak/run.py), and nowhere else."""
    if strays := [item.nodeid for item in items if "local_ray" in item.fixturenames and not may_share_a_ray(item)]:
        raise pytest.UsageError(f"only tests in tests/ray share a Ray, and others ask for it: {', '.join(strays)}")
    if apart := {
        name for item in items if "engines" in item.fixturenames and (name := item.nodeid.partition("::")[0]) not in SHARE_ENGINES
    }:
        raise pytest.UsageError(f"conftest.py names the files that share engines, and not {', '.join(sorted(apart))}")
    wanted = config.getoption("--soak")
    chosen, left = [], []
    for item in items:
        part = soak_part(item)
        if wanted == PROPERTIES and is_property(item):
            part = PROPERTIES
        (chosen if (part is None if wanted is None else part is not None and wanted in (part, "all")) else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = chosen
    if drawn := sys.modules.get("hypothesis.strategies"):
        drawn.text().validate()  # makes the table of all characters that a checkout keeps: two seconds, of no test's


def may_share_a_ray(item) -> bool:
    """Whether a test is one of those that share a Ray. Others fork, and a process with a Ray that forks may lose its answers for ever."""
    return item.path.parent == item.config.rootpath / "tests" / "ray"


def is_property(item) -> bool:
    """Whether a test draws its inputs at random, by hypothesis, itself or in a function of its own."""
    return getattr(item.obj, "is_hypothesis_test", False) or "@given(" in inspect.getsource(item.function)


def soak_part(item) -> str | None:
    """The part of the soak tests to which a test belongs; None if it is no soak test. In tests/soak, that is the file's name."""
    if mark := item.get_closest_marker("soak"):
        return mark.args[0]
    if item.path.parent == item.config.rootpath / "tests" / "soak":
        return item.path.stem.removeprefix("test_")
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files of tests one by one, those that share a process of vLLM together."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return SHARE_ENGINES[0] if file in SHARE_ENGINES else file

    return Scheduling(config, log)


_running: list[pytest.Item] = []
_began: list[Any] = []  # seconds of CPU and the number of modules when the call of the test that runs began; what is compiled in it
_ray = ExitStack()


def _refuse_ray(event, arguments):
    """Audit hook: no test of the quick tier starts a Ray, by whatever road it takes there."""
    if event == "subprocess.Popen" and _running and _running[0].get_closest_marker("slow") is None and "gcs_server" in str(arguments[1]):
        raise AssertionError(f"{_running[0].nodeid} starts Ray, but is not marked slow")


sys.addaudithook(_refuse_ray)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    _running[:] = [item]
    if not may_share_a_ray(item):
        _ray.close()
    try:
        return (yield)
    finally:
        _running.clear()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    with _compiling() as compiled:
        _began[:] = _cpu_s(), len(sys.modules), compiled
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test of the quick tier fails if it takes too long, what it shares and what it is the first to import or to compile apart."""
    report = yield
    if item.config.option.markexpr == QUICK and report.when == "call" and report.passed:
        (before, modules, compiled), taken = _began, _cpu_s()
        if taken - before > QUICK_CPU_S and len(sys.modules) == modules and not compiled:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} took {taken - before:.1f} s of CPU: make it quicker, or mark it slow (pytest.mark.slow)"
    return report


@contextmanager
def _compiling():
    """What numba compiles inside, which it keeps for later runs."""
    events = sys.modules.get("numba.core.event")
    if events is None:
        yield []
    else:
        with events.install_recorder("numba:compile") as recorder:
            yield recorder.buffer


def _cpu_s() -> float:
    """Seconds of CPU of this process and of those that it has started and seen to their end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@pytest.fixture(autouse=True)
def _threads_take_turns_as_before():
    """Actors that are made in the tests' own process set how often threads take turns, which others would run with."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


class _Logged(logging.Handler):
    """Records as they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


@pytest.fixture
def logged():
    """What is logged in a test, record by record. (pytest's own way looks through some two thousand loggers six times a test.)"""
    handler = _Logged()
    logging.getLogger().addHandler(handler)
    yield handler.records
    logging.getLogger().removeHandler(handler)


@pytest.fixture(scope="session")
def local_ray():
    """One local Ray for the tests of tests/ray that need one; jobs called in this process join it. It ends before any other test begins."""
    from reid_ray.config.common import RayConfig
    from reid_ray.runtime import ray_session

    with _ray:
        yield _ray.enter_context(ray_session(RayConfig(address="local")))


@pytest.fixture(scope="session")
def engines(local_ray):
    """vLLM in a process of its own, for the tests of tests/ray that ask engines without a job; it ends with their Ray."""
    from vllm_process import start_engines

    return start_engines()


@pytest.fixture(scope="session")
def street() -> Path:
    """A folder of some hundred real pedestrian crops, which the variable names; the repository holds none."""
    folder = os.environ.get("REID_RAY_CROPS")
    if folder is None:
        pytest.skip("REID_RAY_CROPS names no folder of real pedestrian crops")
    return Path(folder)
