"""Whose turn it is to go over to a newer generation, kept by a Ray actor that all replicas of a service ask."""

from __future__ import annotations

import contextlib
from typing import Any

from reid_ray.retrieval.generation_turns import GenerationTurns

TURNS = "reid_ray_search_turns"
_ANSWER_S = 2.0
_NAMESPACE = "reid_ray"


class RayTurns:
    """As TurnKeeper, of an actor by name; one that is gone is started again.

    Args:
        name: of the actor, one for each service.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._actor: Any = None

    def report(self, replica: str, prepared: int) -> int:
        """As TurnKeeper. Raises what Ray raises where the actor does not answer."""
        import ray

        if self._actor is None:
            kind = ray.remote(num_cpus=0)(GenerationTurns)
            # Detached: whichever replica starts it may end before the others.
            self._actor = kind.options(name=self._name, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True).remote()
        try:
            turn: int = ray.get(self._actor.report.remote(replica, prepared), timeout=_ANSWER_S)
        except Exception:
            self._actor = None
            raise
        return turn


def forget_turns(name: str) -> None:
    """End the actor of a service that has ended."""
    import ray

    with contextlib.suppress(ValueError):  # none was started
        ray.kill(ray.get_actor(name, namespace=_NAMESPACE))
