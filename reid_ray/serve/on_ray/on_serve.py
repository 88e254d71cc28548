"""The retrieval service on Ray Serve: what the cluster must give, its life cycle, and Serve's own words where it does not come up."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from reid_ray.config.called import called
from reid_ray.config.paths import with_absolute_places
from reid_ray.errors import ConfigError, ResourceError
from reid_ray.runtime import Need, check_needs, require_resources
from reid_ray.serve.access.own_machine import is_loopback
from reid_ray.serve.config import ServeJob
from reid_ray.serve.on_ray.direct_ingress import claimed, claimed_port, has_one_node, own_node
from reid_ray.serve.on_ray.ray_turns import TURNS, forget_turns
from reid_ray.serve.process.http_thread import bound_socket

APPLICATION = "reid_ray_search"
# Ray Serve's own default writes a line for every request to the driver's terminal; what people search for does not belong in a log.
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


@contextlib.contextmanager
def ray_service(config: ServeJob, deadline: float) -> Iterator[int]:
    """Serve on the Ray session that is running until the end of the block, which begins once the replicas run; gives the port.

    Raises:
        ConfigError: the port is taken, or certificate and key cannot be used.
        DataError: gallery or encoder are missing, or do not belong together.
        ResourceError: the cluster cannot hold the replicas, Serve runs already with other options, or the service does not come up.
    """
    from ray import serve

    from reid_ray.serve.on_ray.deployment import application, checked

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    config = checked(with_absolute_places(config))  # Serve's proxies read certificate and key where they run
    is_direct = config.serve.ingress == "direct" or (config.serve.ingress is None and has_one_node())
    with contextlib.ExitStack() as parts:
        parts.enter_context(_only_service())
        running = _running_serve()
        if is_direct:
            port = parts.enter_context(claimed_port(config.serve.host, config.serve.port))
            check_needs(_needs(config)[:1], [own_node()], spare_cpus=0)
        elif running is None:
            with bound_socket(config.serve.host, config.serve.port) as probe:
                port = int(probe.getsockname()[1])
        else:
            port = _shared_port(config, running)
        app = application(config, direct_port=port if is_direct else None)
        require_resources(_needs(config), spare_cpus=0)
        if running is None:
            serve.start(**_proxies(config, None if is_direct else port), logging_config=_LOGGING)
        parts.callback(_end, whole=running is None)
        serve.run_many(
            [serve.RunTarget(app, name=APPLICATION, route_prefix=None if is_direct else "/", logging_config=_LOGGING)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        _wait_until_running(deadline)
        yield port


@contextlib.contextmanager
def _only_service() -> Iterator[None]:
    """Be the one search service of the cluster until the end of the block: of its name there is one, and another would take its place.

    Raises:
        ResourceError: one runs there, or starts.
    """
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client

    with claimed(f"Ray at {ray.get_runtime_context().gcs_address}") as is_ours:
        has_serve = _get_global_client(raise_if_no_controller_running=False) is not None
        if not is_ours or (has_serve and APPLICATION in serve.status().applications):
            raise ResourceError(
                "a search service runs in this cluster already; stop it, or start this one on a Ray of its own (ray.address)"
            )
        yield


def _end(*, whole: bool) -> None:
    """Take the application down, or the whole of Ray Serve."""
    from ray import serve

    if whole:
        serve.shutdown()
    else:
        serve.delete(APPLICATION)
    forget_turns(TURNS)


def _proxies(config: ServeJob, port: int | None) -> dict[str, Any]:
    """Ray Serve's proxies at a port, on every node with a replica; None: there are none."""
    if port is None:
        return {"proxy_location": "Disabled"}
    tls = {} if config.tls.certificate is None else {"ssl_certfile": config.tls.certificate, "ssl_keyfile": config.tls.key}
    return {"http_options": {"host": config.serve.host, "port": port, **tls}}


def _needs(config: ServeJob) -> list[Need]:
    searcher, shares = config.searcher, config.shares
    actors = [Need("shares", searcher.replicas * shares.count, num_cpus=shares.num_cpus)] if shares.count > 1 else []
    encoders = config.encoders
    if encoders.replicas:
        actors.append(Need("encoders", encoders.replicas, num_cpus=encoders.num_cpus, num_gpus=encoders.num_gpus))
    return [Need("searcher", searcher.replicas, num_cpus=searcher.num_cpus, num_gpus=searcher.num_gpus), *actors]


class _Proxies(NamedTuple):
    """Where the proxies of a Ray Serve listen, if it has any."""

    host: str
    port: int
    are_there: bool


def _running_serve() -> _Proxies | None:
    """Of the Ray Serve that runs in this cluster already; None: none does."""
    from ray import serve
    from ray.serve.context import _get_global_client  # Serve's public interface does not tell

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    http = client.http_config
    return _Proxies(str(http.host), int(http.port), bool(serve.status().proxies))


def _shared_port(job: ServeJob, running: _Proxies) -> int:
    (host, port, are_there), config = running, job.serve
    if not are_there:
        raise ResourceError(
            f"Ray Serve runs in this cluster already, without proxies; set {called('serve.ingress')} to direct, or shut it down "
            "(serve shutdown)"
        )
    if job.access.tokens is None and not is_loopback(host):
        raise ConfigError(f"Ray Serve runs in this cluster already, bound to {host}; set {called('access.tokens')}, or shut it down first")
    if host != config.host or config.port not in (0, port):
        raise ResourceError(
            f"Ray Serve runs in this cluster already at {host}:{port}, and cannot be moved; set {called('serve.host')} and "
            f"{called('serve.port')} to those, "
            "or shut it down (serve shutdown)"
        )
    return port


def _wait_until_running(deadline: float) -> None:
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    while time.monotonic() < deadline:
        overview = serve.status().applications.get(APPLICATION)
        if overview is not None and overview.status == ApplicationStatus.RUNNING:
            return
        if overview is not None and overview.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise ResourceError(f"the service does not start: {_failure_reason(overview)}")
        time.sleep(0.2)
    raise ResourceError("the service is not up in time; raise start_timeout_s, or see Ray Serve's logs for what keeps it")


def _failure_reason(overview: Any) -> str:
    messages = [overview.message, *(deployment.message for deployment in overview.deployments.values())]
    longest = max(messages, key=len)  # the one that holds the replica's traceback
    lines = [line for line in longest.splitlines() if line.strip()]
    return " ".join(lines[-3:]) if lines else "Ray Serve does not say why; see its logs"
