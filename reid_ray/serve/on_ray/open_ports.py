"""Ports of Ray that anybody could run code through: a service does not start on a Ray without token authentication.

Ray's processes take pickled work from whoever reaches their ports, unless they ask for a token. Whether they do is asked of themselves,
without one: what this process believes of its cluster may be wrong. Knows Ray's ports; not the service.
"""

from __future__ import annotations

import os
from typing import Any

from reid_ray.errors import ConfigError, ResourceError
from reid_ray.serve.access.config import AccessConfig
from reid_ray.serve.access.own_machine import is_loopback

_PATIENCE_S = 10.0
_HEAD, _NODE = "/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.NodeManagerService/GetSystemConfig"


def refuse_open_ray(config: AccessConfig) -> None:
    """Ask the head and every node of the running Ray, without a token, to do something.

    Raises:
        ConfigError: one did, and the configuration does not allow it in words.
        ResourceError: one does not answer.
    """
    import ray

    if config.open_ray != "refuse":
        return
    places = [(ray.get_runtime_context().gcs_address, _HEAD)]
    places += [(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}", _NODE) for node in ray.nodes() if node["Alive"]]
    for address, question in places:
        if _answers_anybody(address, question):
            raise ConfigError(
                f"Ray at {address} has no token authentication, so whoever reaches it runs code as this service's user; start Ray with "
                "RAY_AUTH_MODE=token (cluster/README.md), or write access.open_ray out in full"
            )


def _answers_anybody(address: str, question: str) -> bool:
    import grpc

    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(question, request_serializer=bytes, response_deserializer=bytes)
        try:
            ask(b"", timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return False
            if error.code() is grpc.StatusCode.UNAVAILABLE and os.environ.get("RAY_USE_TLS") == "1":
                return False  # it takes only those that show a certificate of its own
            raise ResourceError(f"Ray at {address} does not say whether it asks for a token ({error.code().name}); try again") from None
    return True


def keep_replica_on_loopback() -> None:
    """In a replica whose node is on the loopback: have Ray Serve's port between replicas there, too.

    Ray Serve 2.60 opens it on all interfaces after the replica was made, wherever the node is; other replicas ask it by the node's address.
    """
    import ray
    from ray.serve._private import replica

    if not is_loopback(ray.util.get_node_ip_address()):
        return
    opened = replica.add_port_to_grpc_server

    def open_here(server: Any, address: str) -> int:
        return int(opened(server, address.replace("[::]", "127.0.0.1")))

    replica.add_port_to_grpc_server = open_here
