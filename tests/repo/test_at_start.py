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
    environment |= {"RAY_CLIENT_MODE": "0", "REID_RAY_WARM_WORKERS": ""}  # an import of Ray sets the first
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


@pytest.mark.parametrize("script", [SETUP, None], ids=["by Ray's set-up", "at once"])
def test_a_worker_that_is_forked_finds_what_one_finds_that_is_started(root, tmp_path, script):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"owner": os.getpid(), "imports": {"worker": ["numpy"]}, "variables": {"worker": {}}}))
    workers = tmp_path / "ray" / "_private" / "workers"
    workers.mkdir(parents=True)
    (workers / "default_worker.py").write_text(f"{SAY}\nprint(sys.path, 'numpy' in sys.modules, os.getppid())\nsys.exit(3)")
    command = [sys.executable, *([script] if script else []), str(workers / "default_worker.py"), "two words $HOME"]
    command += ["--language=PYTHON"] if script else []

    def said(**variables):
        environment = {**os.environ, "PYTHONPATH": str(root / AT_START), "REID_RAY_WARM_WORKERS": "", **variables}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (3, "")
        found, (path, imported, parent) = done.stdout.splitlines()[0], done.stdout.splitlines()[1].rsplit(" ", 2)
        return [*json.loads(found)[:2], {**json.loads(found)[2], "REID_RAY_WARM_WORKERS": ""}, path], imported, int(parent)

    expected, imported, parent = said()
    forks = [said(REID_RAY_WARM_WORKERS=str(settings)) for _ in range(2)]
    assert [fork[0] for fork in forks] == [expected, expected]
    assert (imported, {fork[1] for fork in forks}) == ("False", {"True"})
    assert parent == os.getpid() != forks[0][2] == forks[1][2]


ENDS = """
import atexit, sys, threading, time
atexit.register(print, "asked to be called")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread's last word"))).start()
print("begins")
"""


@pytest.mark.parametrize("end", ["", "sys.exit(None)", "sys.exit('a sentence')", "sys.exit(300)", "raise ValueError('no')"])
def test_a_fork_ends_as_a_process_does(root, tmp_path, end):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"owner": os.getpid(), "imports": {"worker": []}, "variables": {"worker": {}}}))
    script = tmp_path / "ray" / "_private" / "workers" / "default_worker.py"
    script.parent.mkdir(parents=True)
    script.write_text(ENDS + end)

    def ended(settings):
        environment = {**os.environ, "PYTHONPATH": str(root / AT_START), "REID_RAY_WARM_WORKERS": settings}
        done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr.splitlines()[-1:]

    assert ended(str(settings)) == ended("")
    assert len(list(tmp_path.glob("*.lock"))) == 1  # a fork it was


DRAW = """
import threading
from ray._raylet import ObjectRef
drawn = []
thread = threading.Thread(target=lambda: drawn.append(ObjectRef.from_random().hex()))
thread.start()
thread.join()
print(drawn[0])
"""


@pytest.mark.parametrize(
    "imports", [["numpy"], ["ray.data", "ray.train.torch", "ray.serve"]], ids=["Ray imported by the fork", "or before"]
)
def test_no_two_forks_draw_the_same_ids_of_objects(root, tmp_path, imports):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"owner": os.getpid(), "imports": {"worker": imports}, "variables": {"worker": {}}}))
    script = tmp_path / "ray" / "_private" / "workers" / "default_worker.py"
    script.parent.mkdir(parents=True)
    script.write_text(DRAW)
    environment = {**os.environ, "PYTHONPATH": str(root / AT_START), "REID_RAY_WARM_WORKERS": str(settings)}

    def drawn():
        command = [sys.executable, str(script)]
        return subprocess.run(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True).stdout

    assert drawn() != drawn()


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
