"""Attempt boards in Ray actors on the driver's node: as the actors of a pass see theirs, and as the run opens, reads and ends them.

Knows Ray handles; what a death means is the board's (ledger/attempt_board.py).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from reid_ray.caption.ledger.attempt_board import AttemptBoard, Lessons, Rest, Start, Suspicion, all_of
from reid_ray.caption.ledger.write_ahead_log import Index
from reid_ray.caption.streaming.pass_account import ActorAccount, PassFacts
from reid_ray.errors import EngineDownError
from reid_ray.terminal.own_lines import say

_MAX_BROKEN = 64  # actors of a run


class RemoteBoard:
    """An AttemptBoard in a Ray actor. end() ends it: an actor that a pickled closure refers to is kept by Ray as long as its driver lives.

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

    def end(self) -> None:
        """End the actor; it must not be asked any more."""
        import ray

        if ray.is_initialized():  # a Ray that is gone took its actors along
            ray.kill(self._handle)

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray
        from ray.exceptions import RayTaskError

        try:
            return ray.get(getattr(self._handle, method).remote(*arguments))
        except RayTaskError as error:
            raise error.cause from None


def this_device() -> str | None:
    """The node and the GPUs that Ray gave this actor; None if it gave none."""
    import ray

    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return f"{context.get_node_id()}: {','.join(gpus)}" if gpus else None


class RunBoards:
    """The boards of a run's passes, and what they told of broken actors, whose rows are made in the next round.

    A context: no board outlives it.

    Args:
        job: its name, for the lines.
    """

    def __init__(self, job: str) -> None:
        self._job = job
        self._open: list[RemoteBoard] = []  # of the round that runs
        self._lessons = Lessons()  # of all rounds so far
        self.reasons: list[str] = []

    def __enter__(self) -> RunBoards:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def open(self, index: Index, *, parts: int | None = None) -> RemoteBoard:
        """A board for one pass, in a Ray actor on this node, which knows what earlier rounds found.

        Args:
            index: tells which rows earlier runs gave up.
            parts: of the source, if they will be told of; see AttemptBoard.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(AttemptBoard).options(num_cpus=0, scheduling_strategy=here)
        self._open.append(RemoteBoard(actor.remote(index.quarantined, past=self._lessons, parts=parts)))
        return self._open[-1]

    def end_round(self) -> bool:
        """Learn from the boards of this round and end them: whether actors handed rows back.

        Raises:
            EngineDownError: that happened too often.
        """
        told = [board.lessons() for board in self._open]
        self._end()
        found = [reason for lessons in told for reason in lessons.broken.values()]
        for reason in found:
            say(f"{self._job}: an actor is broken, its rows go to others: {reason}")
        self.reasons += found
        if len(self.reasons) > _MAX_BROKEN:
            raise EngineDownError(f"{len(self.reasons)} actors were broken; the last one: {self.reasons[-1]}")
        self._lessons = all_of(self._lessons, told)
        return bool(found)

    def _end(self) -> None:
        while self._open:
            self._open.pop().end()
