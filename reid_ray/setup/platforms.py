"""Where reid_ray runs: which systems, machines and Pythons, and with which engines.

vLLM and DeepSpeed are asked for on Linux on x86-64 alone; the core and search (torch, transformers, Ray, FAISS) are offered on arm64 and
macOS too, where all of those publish builds. pyproject.toml says the same in the markers of its extras, and a test compares the two.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

Support = Literal["all", "search"]

COMMAND = "reid-ray"
OLDEST, NEWEST = (3, 11), (3, 13)
_X86, _ARM = ("x86_64", "amd64"), ("aarch64", "arm64")


class UnsupportedPlatformError(ImportError):
    """A system, machine or Python that reid_ray does not run on."""


def support(system: str, machine: str, python: tuple[int, int]) -> Support:
    """What runs on a platform: "all", or "search" where vLLM and DeepSpeed are not asked for.

    Args:
        system: sys.platform, such as linux or darwin.
        machine: os.uname().machine, such as x86_64, aarch64 or arm64.
        python: major and minor version.

    Raises:
        UnsupportedPlatformError: nothing does; it says what does, in one sentence.
    """
    if not OLDEST <= python <= NEWEST:
        raise UnsupportedPlatformError(
            f"reid_ray runs on Python {_dotted(OLDEST)} to {_dotted(NEWEST)}, and this is Python {_dotted(python)}; "
            "make an environment with one of those"
        )
    if system == "linux" and machine.lower() in _X86:
        return "all"
    if system in ("linux", "darwin") and machine.lower() in _ARM:
        return "search"
    raise UnsupportedPlatformError(
        f"reid_ray runs on Linux (x86-64; arm64 without vLLM and DeepSpeed) and on macOS (arm64, without them), and this is {system} on "
        f"{machine or 'an unknown machine'}; use one of those, or a container or a virtual machine of one"
    )


def support_here() -> Support:
    """support() of this process.

    Raises:
        UnsupportedPlatformError: see support.
    """
    machine = os.uname().machine if hasattr(os, "uname") else ""
    return support(sys.platform, machine, (sys.version_info[0], sys.version_info[1]))


def refuse_other_platforms() -> None:
    """What every import of reid_ray asks; the command `reid-ray` asks for itself, for it says so without a traceback.

    Raises:
        UnsupportedPlatformError: see support.
    """
    if not os.path.basename(sys.argv[0] if sys.argv else "").startswith(COMMAND):
        support_here()


def _dotted(python: tuple[int, int]) -> str:
    return ".".join(map(str, python))
