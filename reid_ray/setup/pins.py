"""The pinned versions that ship with the package: constraints-cpu.txt and constraints-gpu.txt beside this file, for pip's --constraint."""

from __future__ import annotations

from pathlib import Path

STACKS = ("cpu", "gpu")


def constraints_file(stack: str) -> Path:
    """The file of a stack, cpu or gpu."""
    return Path(__file__).resolve().with_name(f"constraints-{stack}.txt")


def pin_of(distribution: str, stack: str) -> str:
    """The version that a stack pins a distribution to."""
    lines = constraints_file(stack).read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.partition("==")[0] == distribution)
