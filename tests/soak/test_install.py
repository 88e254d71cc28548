"""The wheel with its pinned engines from a package index into an empty environment, and the whole demo there; the core on every Python.

Some gigabytes come over the network. An interpreter that is not on this machine is skipped with a reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SMALL_DEMO = [
    "synthesize.people.identities=60",
    "caption.rewriter.share=0.03",
    "train.schedule.epochs=2",
    "train.schedule.max_steps=8",
    "train.schedule.validate_every=4",
    "train.schedule.checkpoint_every=4",
    "sheet_queries=2",
]


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, root]
    subprocess.run(command, check=True, timeout=120)
    return next(folder.glob("*.whl"))


class Environment:
    """An empty environment, and commands of it in an empty folder."""

    def __init__(self, python: str, folder: Path) -> None:
        self._bin, self.work = folder / "venv" / "bin", folder / "work"
        self.work.mkdir()
        subprocess.run([python, "-m", "venv", folder / "venv"], check=True, timeout=120)

    def run(self, *words: object, timeout_s: float = 300) -> subprocess.CompletedProcess:
        command = [self._bin / str(words[0]), *map(str, words[1:])]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_ADDRESS"))}
        environment["REID_RAY_LOGS"] = str(self.work.parent / "logs")
        environment["REID_RAY_CACHE"] = str(self.work.parent / "cache")  # what setup makes is made here, not found
        return subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s)

    def done(self, *words: object, timeout_s: float = 300) -> str:
        ended = self.run(*words, timeout_s=timeout_s)
        assert ended.returncode == 0, f"{words}: {ended.stdout[-3000:]}{ended.stderr[-3000:]}"
        return ended.stdout.strip()


def python_of(version: str) -> str | None:
    """An interpreter of a version, if one runs: a version manager puts names on the PATH that end in an error."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return sys.executable
    python = shutil.which(f"python{version}")
    answers = python and subprocess.run([python, "-c", "import venv"], capture_output=True, check=False, timeout=60).returncode == 0
    return python if answers else None


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_core_installs_and_works_on_every_python(wheel, version, tmp_path):
    python = python_of(version)
    if python is None:
        pytest.skip(f"no python{version} on the PATH that runs")
    here = Environment(python, tmp_path)
    here.done("pip", "install", "--quiet", wheel, timeout_s=900)
    here.done("reid-ray", "synthesize", "--config", "synthesize.yaml", "people.identities=6", "output.path=people")
    here.done("reid-ray", "lint", "source.format=parquet", "source.path=people", "output.path=lint")
    here.done("reid-ray", "export", "tables=people", "format=cuhk_pedes", "output.path=published")
    here.done("reid-ray", "ingest", "source.format=cuhk_pedes", "source.path=published", "output.path=back")
    refused = here.run("reid-ray", "caption", "--config", "caption.yaml")
    assert refused.returncode == 2
    assert "reid-ray setup" in refused.stderr


def test_the_wheel_and_its_pinned_engines_run_the_whole_demo(wheel, tmp_path):
    here = Environment(sys.executable, tmp_path)
    here.done("pip", "install", "--quiet", wheel, timeout_s=900)
    pins = here.done("reid-ray", "constraints", "cpu")
    here.done("pip", "install", "--quiet", f"{wheel}[cpu]", "-c", pins, timeout_s=2700)
    refused = here.run("reid-ray", "demo", *SMALL_DEMO)
    assert refused.returncode == 2
    assert "reid-ray setup" in refused.stderr
    here.done("reid-ray", "setup", timeout_s=900)
    here.done("reid-ray", "demo", *SMALL_DEMO, timeout_s=1500)
    report = json.loads((here.work / "demo" / "report.json").read_text())
    assert [row["name"] for row in report["stages"]] == ["synthesize", "caption", "train", "evaluate", "index", "serve"]
    assert len(report["service"]["hits"]) > 0
