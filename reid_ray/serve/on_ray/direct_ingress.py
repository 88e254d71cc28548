"""One port for all replicas of a service: they listen at it themselves, on the machine that started the service, without Ray Serve's proxy.

Linux divides those who call among whoever listens at a port that is shared, and gives it to processes of one user alone; a replica that
dies takes nothing with it but what it had in hand. Ray Serve still starts replicas, looks after them and decides on their number, by the
searches that they say they have. Knows ports and Ray's nodes; not the service.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from reid_ray.config.called import called
from reid_ray.errors import ConfigError
from reid_ray.serve.process.http_thread import bound_socket

IN_HAND = "searches_in_hand"
"""What a replica tells Ray Serve's controller."""


@contextlib.contextmanager
def claimed_port(host: str, port: int) -> Iterator[int]:
    """A port that is this service's until the end of the block, and nobody's at its beginning; port 0 takes a free one.

    Raises:
        ConfigError: it cannot be bound, or another service of this machine has claimed it, also while none of its replicas listens.
    """
    with contextlib.ExitStack() as claims:
        with bound_socket(host, port) as probe:
            port = int(probe.getsockname()[1])
            if not claims.enter_context(claimed(f"port {port}")):
                raise ConfigError(
                    f"{called('serve.port')} {port}: it is that of another search service, whose replicas start; choose another port, or 0 "
                    "for a free one"
                )
        yield port


@contextlib.contextmanager
def claimed(what: str) -> Iterator[bool]:
    """Whether something is this process' until the end of the block; False: another process of this machine has claimed it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(f"\0reid_ray search service: {what}")  # a name of Linux alone, gone with whoever has it
        except OSError:
            yield False
        else:
            yield True


def has_one_node() -> bool:
    """Whether Ray runs on one machine alone."""
    import ray

    return sum(node["Alive"] for node in ray.nodes()) == 1


def own_node() -> dict[str, float]:
    """What the node has that this process runs on."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    found: dict[str, float] = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return found


def own_place() -> str:
    """The resource that this process' node alone has: an actor that needs some of it runs here."""
    import ray

    return f"node:{ray.util.get_node_ip_address()}"


def replicas_for_searches(context: Any) -> tuple[float, dict[str, Any]]:
    """Ray Serve's autoscaling policy by searches in hand, `target_ongoing_requests` for each replica; its own sees the proxy's alone.

    Args:
        context: ray.serve.config.AutoscalingContext.
    """
    in_hand = sum((context.aggregated_metrics or {}).get(IN_HAND, {}).values())
    return in_hand / context.config.get_target_ongoing_requests(), {}
