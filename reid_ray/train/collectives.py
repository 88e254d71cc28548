"""Collectives on Python objects and flags: broadcast from rank 0, all-gather, all-reduce "any". Knows torch.distributed alone.

Control flow must be the same on every rank. Workers that each compute a number may differ in its last bit, and one bit is enough to send
them into different collectives, where they deadlock. So a value that decides how a run goes on is taken from rank 0, or is a flag that any
worker may raise. Without a process group each function gives what one worker would get.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


def broadcast(value: Value) -> Value:
    """Rank 0's value, on every worker; every worker must call it."""
    if not distributed():
        return value
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]


def all_gather(value: Value) -> list[Value]:
    """Every worker's value, in the order of ranks; every worker must call it."""
    if not distributed():
        return [value]
    said: list[Value | None] = [None] * dist.get_world_size()
    dist.all_gather_object(said, value)
    return [each for each in said if each is not None]


def all_reduce_any(flags: torch.Tensor | Sequence[bool], *, device: torch.device) -> list[bool]:
    """Per flag, whether any worker raised it; every worker must call it with as many flags, and all get the same."""
    raised = torch.as_tensor(flags).to(device, torch.int32)
    if distributed():
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def distributed() -> bool:
    """Whether there are other workers to talk to."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
