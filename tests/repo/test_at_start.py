"""What the tests' processes do first (tests/shared/at_start) changes nothing but how long it takes."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # imports Ray, and transformers

SETUP = Path(importlib.util.find_spec("ray").origin).parent / "_private" / "workers" / "setup_worker.py"
AT_START = Path("tests", "shared", "at_start")
SAY = "import json, os, sys; print(json.dumps([sys.orig_argv, sys.executable, dict(os.environ), os.getcwd()]))"
OF_A_SHELL = {"_", "SHLVL", "PWD", "OLDPWD", "PYTHONPATH"}


def worker(context, paths, tmp_path):
    """What the worker finds that Ray starts so; how many of the processes on the way imported Ray."""
    (tmp_path / "worker.py").write_text(SAY)
    words = [str(tmp_path / "worker.py"), "--node-ip-address=192.0.2.1", "--webui=", "two words $HOME", "--language=PYTHON"]
    words += [] if context is None else [f"--serialized-runtime-env-context={json.dumps(context)}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONPROFILEIMPORTTIME": "1"}
    environment["RAY_CLIENT_MODE"] = "0"  # which an import of Ray sets
    done = subprocess.run([sys.executable, SETUP, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    command, python, variables, folder = json.loads(done.stdout)
    imports = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return (command, python, {k: v for k, v in variables.items() if k not in OF_A_SHELL}, folder), imports.count("ray")


@pytest.mark.parametrize(
    ("context", "imports"),
    [
        (None, 0),
        ({"command_prefix": [], "env_vars": {"A": "of the runtime environment", "HOME": "/"}, "py_executable": sys.executable}, 0),
        ({"env_vars": {"A": "${HOME}/there", "B": "$NOWHERE"}, "override_worker_entrypoint": None, "java_jars": []}, 1),
        ({"command_prefix": ["cd", "/", "&&"]}, 1),
    ],
    ids=["nothing", "variables", "variables of variables", "a command before it"],
)
def test_a_worker_of_ray_finds_what_it_finds_without_our_short_cut(root, tmp_path, context, imports):
    expected, once = worker(context, [], tmp_path)
    found, times = worker(context, [str(root / AT_START)], tmp_path)
    assert found == expected
    assert (once, times) == (1, imports)


LIST = """
import transformers, transformers.models
from transformers.utils import import_utils
print(sorted((module, sorted(packages)) for module, packages in import_utils.PACKAGE_DISTRIBUTION_MAPPING.items()))
for listed in (transformers.models, transformers):
    print(sorted((module, sorted(names)) for module, names in listed._import_structure.items()))
"""


def test_transformers_lists_the_models_and_packages_that_it_lists_without_ours(root, tmp_path):
    def listed(*paths):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": ""}
        return subprocess.run([sys.executable, "-c", LIST], env=environment, capture_output=True, text=True, check=True).stdout

    ours = shutil.copytree(root / AT_START, tmp_path / "at_start", ignore=shutil.ignore_patterns("__pycache__"))
    expected = listed()
    assert len(expected) > 100_000
    for _ in ("reads and keeps", "finds"):
        assert listed(ours) == expected
        assert len(list(ours.glob("__pycache__/*.marshal"))) == 2
