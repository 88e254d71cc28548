"""The pinned versions that ship with the package: constraints-cpu.txt and constraints-gpu.txt, for pip's --constraint.

In a checkout they lie at its top; a wheel carries them as reid_ray/constraints.
"""

from __future__ import annotations

from pathlib import Path

STACKS = ("cpu", "gpu")
_PACKAGE = Path(__file__).resolve().parents[1]


def constraints_file(stack: str) -> Path:
    """The file of a stack, cpu or gpu."""
    name = f"constraints-{stack}.txt"
    installed = _PACKAGE / "constraints" / name
    return installed if installed.is_file() else _PACKAGE.parent / name


def pin_of(distribution: str, stack: str) -> str:
    """The version that a stack pins a distribution to."""
    lines = constraints_file(stack).read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.partition("==")[0] == distribution)
