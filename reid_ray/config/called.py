"""What a key of a configuration is called by whoever typed the command: by its dotted name, unless the command has words of its own.

`reid-ray search` runs the index job, whose keys begin with index. there; `reid-ray label write` has arguments in their place. A message
names a key by `called`, so that no command looks for keys in messages. Other processes and threads than the command's own call it by its
dotted name. Knows names; not what a key does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_called: ContextVar[Callable[[str], str]] = ContextVar("called", default=str)


def called(key: str) -> str:
    """What the user of the running command calls a key, as in output.path."""
    return _called.get()(key)


@contextmanager
def keys_called(by: Callable[[str], str]) -> Iterator[None]:
    """Within the block keys are called as `by` says of each."""
    before = _called.set(by)
    try:
        yield
    finally:
        _called.reset(before)
