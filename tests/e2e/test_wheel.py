"""What a person has who installed the wheel alone: the command, the configurations and the demo, far from any checkout.

The engines are those of this environment, seen by way of a .pth file, which neither runs their own .pth files nor shows the checkout. The
whole installation, from a package index, is a soak test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from reid_ray.storage import read_manifest

pytestmark = pytest.mark.slow

FIRST_STAGES = [
    "synthesize.people.identities=12",
    "synthesize.people.images_per_identity=2",
    "caption.rewriter.share=0",
    "caption.captioners.tiny.instructions=[static]",
    "train.batches.size=8",  # or it would refuse so few people, if it comes to that before the signal does
]


@pytest.fixture(scope="module")
def home(root, tmp_path_factory) -> Path:
    """A folder with an environment that holds the wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, root], check=True, timeout=120)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True, timeout=120)
    (installed(folder).parent / "engines.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    _keep_compiled(root / "reid_ray", installed(folder))
    return folder


def _keep_compiled(tree: Path, copy: Path) -> None:
    """numba's machine code of the tree's kernels is that of the wheel's, which is told by the sources' times."""
    for kept in tree.rglob("__pycache__/*.nb[ci]"):
        there = copy / kept.relative_to(tree)
        source = f"{kept.name.partition('.')[0]}.py"
        there.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process is about to put it there
            shutil.copystat(kept.parent.parent / source, there.parent.parent / source)
            shutil.copy(kept, there)


@pytest.fixture
def reid_ray(home, tmp_path):
    """Calls the installed command in an empty folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_ADDRESS"))}
    environment["REID_RAY_LOGS"] = str(tmp_path / "logs")

    def start(*words: str) -> subprocess.Popen:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        command = [home / "venv" / "bin" / "reid-ray", *words]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # A job keeps a signal ignored that was ignored when it began, as all are of a test run in the background.
        return subprocess.Popen(["env", "--default-signal=INT", *command], cwd=folder, env=environment, **streams)

    return start


def installed(home: Path) -> Path:
    return next((home / "venv" / "lib").glob("python3*/site-packages/reid_ray"))


def files(folder: Path) -> dict[str, int]:
    """What lies in a folder, but for compiled code: path -> time of the last change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}


def finished(process: subprocess.Popen, timeout_s: float = 120) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=timeout_s)
    return process.returncode, output, errors


def test_before_setup_a_sentence_says_so_and_then_the_demo_runs_in_any_folder(home, reid_ray, tmp_path):
    code, _, errors = finished(reid_ray("demo", *FIRST_STAGES))
    assert code == 2, errors
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if "reid-ray setup" in line] == errors.splitlines()[:1]
    assert list((tmp_path / "work").iterdir()) == []

    code, output, errors = finished(reid_ray("setup"))
    assert code == 0, errors
    before = files(installed(home))

    demo = reid_ray("demo", *FIRST_STAGES)
    for line in demo.stdout:
        output += line
        if line.startswith("[3/6]"):
            demo.send_signal(signal.SIGINT)
            break
    code, rest, errors = finished(demo)
    assert code == 130, output + rest + errors
    assert "[3/6]" in output, output + rest + errors
    work = tmp_path / "work"
    people, captions = (read_manifest(work / "demo" / name)["counts"] for name in ("people", "captions"))
    assert people["written"] >= 24
    assert captions["written"] > 0
    assert captions["failed"] == {}
    assert [path.name for path in work.iterdir()] == ["demo"]
    assert files(installed(home)) == before


def test_the_shipped_configurations_come_from_the_wheel(home, reid_ray, tmp_path):
    code, output, errors = finished(reid_ray("configs", "copy", "data/synthesize.yaml"))
    assert (code, output.strip()) == (0, "synthesize.yaml"), errors
    assert (tmp_path / "work" / "synthesize.yaml").read_text() == (installed(home) / "configs/data/synthesize.yaml").read_text()
    assert str(installed(home)) in finished(reid_ray("constraints", "cpu"))[1]
    code, _, errors = finished(reid_ray("synthesize", "--config", "synthesize.yaml", "people.identities=6", "output.path=people"))
    assert code == 0, errors
    assert read_manifest(tmp_path / "work" / "people")["counts"]["failed"] == {}
