"""What all replicas of a service have alike: how they yield to other threads, how often they are looked after, how many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SWITCH_S = 0.0002
"""How long a thread keeps the interpreter from another. To take requests from Ray, if only to refuse them, keeps it busy; at Python's 5 ms,
whoever is refused hears of it later."""
LOOKED_AFTER_S = 2.0
"""How often Ray Serve looks whether a replica lives; its default is ten seconds. One that died is asked nothing more at once, but until the
next look no other is started in its place."""


def number_of_replicas(least: int, most: int | None, *, in_hand: float, policy: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Options of a deployment: so many replicas, or from `least` to `most`, by what each should have in hand.

    Args:
        least: replicas at the start.
        most: that there may be; None: the number is fixed.
        in_hand: of a replica, on average.
        policy: how the number is found; None: by what Ray Serve's handles and proxy have sent.
    """
    if most is None:
        return {"num_replicas": least}
    autoscaling: dict[str, Any] = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": in_hand}
    if policy is not None:
        autoscaling["policy"] = {"policy_function": policy}
    return {"autoscaling_config": autoscaling}
