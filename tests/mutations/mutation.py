"""A mutation: what a mistake would change in one place, and who should notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One change of one place.

    name: what is wrong then.
    file: where, from the root of the tree.
    old: stands exactly once in `file`.
    new: takes its place.
    tests: what pytest is given; some of it should fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
