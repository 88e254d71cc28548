"""Whether the engines that a job runs on are installed and set up, before any of them is imported.

Reads what pip wrote about this environment; imports no engine. What is missing is made by `reid-ray setup`, or by pip, and the sentence
says by which.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from reid_ray.errors import ResourceError
from reid_ray.jobs import Engines
from reid_ray.setup.platforms import Support, support_here
from reid_ray.setup.torchvision_cpu import HOOK_NAME

SEARCH = ("torch", "transformers", "ray", "faiss")
ALL = (*SEARCH, "vllm", "deepspeed")
_CPU_BUILD = "+cpu"
INSTALL = (
    "install the wheel's extra cpu, or gpu beside an NVIDIA GPU, with its pinned versions "
    '(pip install "WHEEL[cpu]" -c "$(reid-ray constraints cpu)"), then run: reid-ray setup'
)


@dataclass(frozen=True)
class Installed:
    """What an environment holds.

    modules: importable modules among ALL.
    versions: of the distributions torch, torchvision, torchaudio and torchcodec, where installed.
    hook: torchvision's hook is at work in this process (see torchvision_cpu).
    """

    modules: frozenset[str]
    versions: Mapping[str, str]
    hook: bool


def require_engines(job: str, engines: Engines) -> None:
    """Refuse a job whose engines are not there.

    Raises:
        ResourceError: names the job, what is missing, and the remedy.
    """
    if engines != "none" and (sentence := unready(job, engines, installed(), support_here())) is not None:
        raise ResourceError(sentence)


def unready(job: str, engines: Engines, found: Installed, here: Support) -> str | None:
    """Why a job cannot start in an environment, in one sentence that names the remedy; None if it can."""
    if engines == "none":
        return None
    wanted = ALL if engines == "all" else SEARCH
    missing = [module for module in wanted if module not in found.modules]
    if engines == "all" and here != "all" and missing:
        return f"the {job} job needs {' and '.join(missing)}, which are not offered for this machine; run it on Linux on x86-64"
    if missing:
        return f"the {job} job needs {', '.join(missing)}: {INSTALL}"
    if (undone := torch_undone(found)) is not None:
        return f"the {job} job needs an environment that is set up, and here {undone}; run: reid-ray setup"
    return None


def torch_undone(found: Installed) -> str | None:
    """What keeps torchvision from being imported beside torch's CPU build; None if nothing does.

    vLLM and transformers import torchvision, and try torchaudio and torchcodec, whose CUDA builds cannot be loaded there at all.
    """
    if not found.versions.get("torch", "").endswith(_CPU_BUILD):
        return None
    foreign = [name for name in ("torchaudio", "torchcodec") if name in found.versions and not found.versions[name].endswith(_CPU_BUILD)]
    if foreign:
        return f"{' and '.join(foreign)} cannot be loaded beside torch's CPU build"
    if "torchvision" in found.versions and not found.versions["torchvision"].endswith(_CPU_BUILD) and not found.hook:
        return "torchvision cannot be imported beside torch's CPU build"
    return None


def installed() -> Installed:
    """What this process's environment holds."""
    versions = {}
    for name in ("torch", "torchvision", "torchaudio", "torchcodec"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    present = frozenset(module for module in ALL if importlib.util.find_spec(module) is not None)
    return Installed(modules=present, versions=versions, hook=HOOK_NAME in sys.modules)
