"""Shares of a gallery in Ray actors, one on each node as far as there are nodes; an actor that dies is started again and reads anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reid_ray.gallery.shards.one_share import Shard, ShardLostError, ShareReply
from reid_ray.gallery.shards.share import Position, Share


def start_shards(folder: str, of: int, *, encoder: str | None = None, num_cpus: float = 1.0, timeout_s: float = 30.0) -> list[RayShard]:
    """Start the shares of a gallery in actors, spread over the nodes, which all see the gallery's folder or address.

    Args:
        folder: the gallery.
        of: how many shares.
        encoder: as GalleryReader has it.
        num_cpus: that each is given.
        timeout_s: a share that does not answer for so long is lost.
    """
    import ray

    actor = ray.remote(num_cpus=num_cpus, scheduling_strategy="SPREAD", max_restarts=-1, max_concurrency=16)(Shard)
    return [RayShard(actor.remote(folder, Share(number, of), encoder), timeout_s) for number in range(of)]


class RayShard:
    """As Asked, of an actor."""

    def __init__(self, actor: Any, timeout_s: float) -> None:
        self.actor, self._timeout_s = actor, timeout_s

    def look(self) -> Position:
        """As Asked."""
        found: Position = self._got(self.actor.look.remote())
        return found

    def advance(self, position: Position) -> Position:
        """As Asked."""
        found: Position = self._got(self.actor.advance.remote(position))
        return found

    def ask(self, position: Position | None, question: str, words: Sequence[Any], named: Mapping[str, Any]) -> ShareReply:
        """As Asked."""
        found: ShareReply = self._got(self.actor.ask.remote(position, question, words, named))
        return found

    def _got(self, answer: Any) -> Any:
        import ray

        try:
            return ray.get(answer, timeout=self._timeout_s)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError, ray.exceptions.ObjectLostError) as error:
            raise ShardLostError(type(error).__name__) from None
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
