"""The attempt board of a pass in a Ray actor on the driver's node, as caption actors see it, and what a run makes of broken actors.

Knows Ray handles; what a death means is the board's (ledger/attempt_board.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from reid_ray.caption.ledger.attempt_board import AttemptBoard, Lessons, Rest, Start, Suspicion, all_of
from reid_ray.caption.ledger.write_ahead_log import Index
from reid_ray.caption.streaming.pass_account import ActorAccount, PassFacts
from reid_ray.errors import EngineDownError
from reid_ray.terminal.own_lines import say

_MAX_BROKEN = 64  # actors of a run


class RemoteBoard:
    """An AttemptBoard in a Ray actor; it ends when nobody holds this any more.

    Args:
        handle: of the Ray actor.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def begin(self, actor: str, in_flight: Collection[str] | None = None, reason: str | None = None, device: str | None = None) -> Start:
        """See AttemptBoard."""
        return self._ask("begin", actor, in_flight, reason, device)

    def started(self, actor: str) -> None:
        """See AttemptBoard."""
        self._ask("started", actor)

    def explain(self, actor: str, reason: str) -> None:
        """See AttemptBoard."""
        self._ask("explain", actor, reason)

    def take(self, actor: str, names: Collection[str]) -> Suspicion:
        """See AttemptBoard."""
        return self._ask("take", actor, names)

    def made(self, actor: str, rows: int) -> None:
        """See AttemptBoard."""
        self._ask("made", actor, rows)

    def done(self, actor: str, names: Collection[str]) -> None:
        """See AttemptBoard."""
        self._handle.done.remote(actor, names)

    def read(self, part: str) -> None:
        """See AttemptBoard."""
        self._handle.read.remote(part)

    def rest(self, actor: str) -> Rest:
        """See AttemptBoard."""
        return self._ask("rest", actor)

    def tell(self, actor: str, account: ActorAccount) -> None:
        """See AttemptBoard."""
        self._handle.tell.remote(actor, account)

    def facts(self) -> PassFacts:
        """See AttemptBoard."""
        return self._ask("facts")

    def lessons(self) -> Lessons:
        """See AttemptBoard."""
        return self._ask("lessons")

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray
        from ray.exceptions import RayTaskError

        try:
            return ray.get(getattr(self._handle, method).remote(*arguments))
        except RayTaskError as error:
            raise error.cause from None


def remote_board(index: Index, *, past: Lessons | None = None, parts: int | None = None) -> RemoteBoard:
    """A board for one pass, in a Ray actor on this node.

    Args:
        index: tells which rows earlier runs gave up.
        past: what earlier rounds of this run found; see Broken.
        parts: of the source, if they will be told of; see AttemptBoard.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(AttemptBoard).options(num_cpus=0, scheduling_strategy=here)
    return RemoteBoard(board.remote(index.quarantined, past=past, parts=parts))


def this_device() -> str | None:
    """The node and the GPUs that Ray gave this actor; None if it gave none."""
    import ray

    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return f"{context.get_node_id()}: {','.join(gpus)}" if gpus else None


class Broken:
    """Actors that were broken in a run, told to the user; their rows are missing after the round and made in the next.

    Args:
        job: its name, for the lines.
    """

    def __init__(self, job: str) -> None:
        self._job = job
        self.reasons: list[str] = []
        self.lessons = Lessons()  # of all rounds so far

    def seen(self, boards: Sequence[RemoteBoard]) -> bool:
        """Look at the boards of a round: whether actors handed rows back.

        Raises:
            EngineDownError: that happened too often.
        """
        told = [board.lessons() for board in boards]
        found = [reason for lessons in told for reason in lessons.broken.values()]
        for reason in found:
            say(f"{self._job}: an actor is broken, its rows go to others: {reason}")
        self.reasons += found
        if len(self.reasons) > _MAX_BROKEN:
            raise EngineDownError(f"{len(self.reasons)} actors were broken; the last one: {self.reasons[-1]}")
        self.lessons = all_of(self.lessons, told)
        return bool(found)
