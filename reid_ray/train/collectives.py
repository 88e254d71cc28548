"""One decision for all workers. Knows torch.distributed; not what is decided.

Workers that each compute a number may differ in its last bit, and one bit is enough to send them into different collectives, where they
wait for each other for ever. So whatever chooses the way of a run is taken from one worker, or is a flag that any worker may raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


def agreed(value: Value) -> Value:
    """What rank 0 says; every worker must ask, and all are given the same."""
    if not _distributed():
        return value
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]


def gathered(value: Value) -> list[Value]:
    """What each worker says, in the order of their ranks; every worker must ask."""
    if not _distributed():
        return [value]
    said: list[Value | None] = [None] * dist.get_world_size()
    dist.all_gather_object(said, value)
    return [each for each in said if each is not None]


def raised_anywhere(flags: torch.Tensor | Sequence[bool], *, device: torch.device) -> list[bool]:
    """Which of the flags some worker has raised; every worker must bring as many, and all are given the same."""
    raised = torch.as_tensor(flags).to(device, torch.int32)
    if _distributed():
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
