"""Ray Serve deployment of the retrieval service: replicas that are the single process's application, each with encoder and gallery.

Knows Ray Serve; the work is in operations/ and api/. Searches that arrive together at a replica are encoded and searched together.
"""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ray import serve

from reid_ray.errors import ResourceError
from reid_ray.serve.api.application import make_api
from reid_ray.serve.config import SearcherConfig, ServeJob
from reid_ray.serve.on_ray.direct_ingress import IN_HAND, own_place, replicas_for_searches
from reid_ray.serve.on_ray.encoder_replicas import MESSAGES, RemoteEncoder, encoders_application
from reid_ray.serve.on_ray.open_ports import keep_replica_on_loopback, refuse_open_ray
from reid_ray.serve.on_ray.ray_turns import TURNS, RayTurns
from reid_ray.serve.on_ray.replica_settings import LOOKED_AFTER_S, SWITCH_S, number_of_replicas
from reid_ray.serve.opened_access import check_access, service_access
from reid_ray.serve.opened_writing import open_writing, start_writing, writing_routes
from reid_ray.serve.operations.search_operations import open_operations, refuse_what_cannot_work
from reid_ray.serve.process.http_thread import ServerThread, bound_socket

_A_LITTLE = 1e-3
"""Of a node's own resource: enough to hold a replica there."""


def checked(config: ServeJob) -> ServeJob:
    """What cannot work is refused here, before a replica starts; as refuse_what_cannot_work gives it.

    Raises:
        ConfigError: certificate and key cannot be used, or whoever reaches Ray may run code on it.
        DataError: gallery or encoder are missing, or do not belong together, or an editor made pictures of the gallery.
    """
    check_access(config)
    config = refuse_what_cannot_work(config)
    refuse_open_ray(config.access)
    return config


def application(config: ServeJob, *, direct_port: int | None = None) -> serve.Application:
    """The service, ready for serve.run.

    Args:
        config: of the service, checked.
        direct_port: where replicas listen by themselves, on this machine; None: requests come through Ray Serve's proxy.
    """
    encoders = None
    if config.encoders.replicas:
        assert config.encoder is not None  # as it is named once checked
        encoders = encoders_application(config.encoder, config.encoders, batch_size=config.searcher.max_batch_size)
    return _deployment(config.searcher, is_direct=direct_port is not None, has_encoders=encoders is not None).bind(
        config, direct_port, encoders
    )


@serve.ingress()
class Replica:
    """A replica: the application of the single process; `encoders` is the handle of what encodes elsewhere."""

    def __init__(self, config: ServeJob, direct_port: int | None, encoders: Any = None) -> None:
        sys.setswitchinterval(SWITCH_S)
        keep_replica_on_loopback()
        several = config.shares.count == 1 and (config.searcher.replicas > 1 or (config.searcher.max_replicas or 1) > 1)
        turns = RayTurns(TURNS) if several else None
        limits = {"timeout_s": config.serve.timeout_s, "start_timeout_s": config.start_timeout_s}
        elsewhere = None if encoders is None else partial(RemoteEncoder, encoders, **limits)
        name = serve.get_replica_context().replica_id.unique_id
        self._operations = open_operations(config, turns=turns, replica=name, encoders=elsewhere)
        access, self._writing = service_access(config), open_writing(config)
        self._application = make_api(self._operations, access=access, further=writing_routes(self._writing), access_log=config.access_log)
        with ThreadPoolExecutor(1) as loading:  # encoders elsewhere are not to be asked on this thread's event loop
            loading.submit(self._operations.load).result()
        start_writing(self._writing, self._operations.engine, access.audit)
        gc.freeze()  # as where one process serves
        self._server = None if direct_port is None else _listening(self._application, config, direct_port)

    def __del__(self) -> None:
        """Called by Ray Serve when the replica ends in order: changes that wait are made."""
        if "_server" in vars(self) and self._server is not None:
            self._server.stop()
        if "_writing" in vars(self):  # else it never began
            self._writing.close()

    def __serve_build_asgi_app__(self) -> Any:
        """Ray Serve's hook: the application, made in the replica, where engine and gallery are."""
        return self._application

    def check_health(self) -> None:
        """Ray Serve's hook: a replica that does not answer any more is started anew.

        Raises:
            ResourceError: it listens by itself, and does not any more.
        """
        if self._server is not None and not self._server.is_running:
            raise ResourceError("the replica's HTTP server has ended; its log says why")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve's hook: what its number of replicas follows where no proxy counts."""
        return {IN_HAND: float(self._operations.in_hand)}


def _listening(application: Any, config: ServeJob, port: int) -> ServerThread:
    """A server for what reaches the port, which other replicas of this machine have, too."""
    server = ServerThread(application, bound_socket(config.serve.host, port, shared=True), config.tls)
    server.start()
    return server


def _deployment(config: SearcherConfig, *, is_direct: bool, has_encoders: bool) -> serve.Deployment:
    policy = replicas_for_searches if is_direct else None
    here = {own_place(): _A_LITTLE} if is_direct else {}
    return serve.deployment(
        Replica,
        name="Replica",
        max_ongoing_requests=config.max_ongoing_requests,
        health_check_period_s=LOOKED_AFTER_S,
        ray_actor_options={
            "num_cpus": config.num_cpus,
            "num_gpus": config.num_gpus,
            "resources": here,
            **({"runtime_env": MESSAGES} if has_encoders else {}),
        },
        **number_of_replicas(config.replicas, config.max_replicas, in_hand=config.target_ongoing_requests, policy=policy),
    )
