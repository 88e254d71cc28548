"""The serve job: starts the search service on Ray Serve, waits for its health, and stops it.

Knows Ray Serve's life cycle, ports and signals; the service itself is in deployments.py. Everything that can be refused is refused
before Serve starts, and a service that does not come up is an error with Serve's own words, not an endless wait.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from reid_ray.errors import ConfigError, ResourceError
from reid_ray.runtime import Need, ray_session, require_resources
from reid_ray.serve.config import ServeConfig, ServeJob, is_loopback
from reid_ray.terminal.own_lines import say

APPLICATION = "reid_ray_search"
# Ray Serve's own default writes a line for every request to the driver's terminal; what people search for does not belong in a log.
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


class Service:
    """A running service. `url` is where it answers; `stop` takes it down; also a context manager."""

    def __init__(self, url: str, *, owns_serve: bool) -> None:
        self.url = url
        self._owns_serve = owns_serve

    def stop(self) -> None:
        """Take the service down, and Ray Serve too if it was started for it."""
        from ray import serve

        if self._owns_serve:
            serve.shutdown()
        else:
            serve.delete(APPLICATION)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def start_service(config: ServeJob) -> Service:
    """Start the service on the Ray session that is running, and return once it answers.

    Raises:
        ConfigError: the token is not set, or the port is taken.
        DataError: index or encoder are missing, or do not belong together.
        ResourceError: the cluster cannot hold the replicas, Serve runs already with other options, or the service does not come up.
    """
    from ray import serve

    from reid_ray.serve.deployments import application

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    app = application(config)
    require_resources(_needs(config), spare_cpus=0)
    running = _running_http_options()
    if running is None:
        port = _free_port(config.serve)
        serve.start(http_options={"host": config.serve.host, "port": port}, logging_config=_LOGGING)
    else:
        port = _shared_port(config.serve, running)
    service = Service(_url(config.serve.host, port), owns_serve=running is None)
    try:
        serve.run_many(
            [serve.RunTarget(app, name=APPLICATION, route_prefix="/", logging_config=_LOGGING)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        deadline = time.monotonic() + config.start_timeout_s
        _wait_until_running(deadline)
        _wait_until_healthy(service.url, deadline)
    except BaseException:
        service.stop()
        raise
    return service


def run_serve(config: ServeJob) -> dict[str, Any]:
    """Serve until Ctrl-C or SIGTERM, then shut down in order."""
    config.serve.token()  # one that is missing is refused before Ray starts
    with contextlib.ExitStack() as stack:
        with _without_variable(config.serve.token_env):
            stack.enter_context(ray_session(config.ray))
        service = stack.enter_context(start_service(config))
        run_until_stopped(service)
    return {"url": service.url}


@contextlib.contextmanager
def _without_variable(variable: str | None) -> Iterator[None]:
    """Processes that are started inside do not inherit the token; what the service needs of it is its digest."""
    value = os.environ.pop(variable, None) if variable is not None else None
    try:
        yield
    finally:
        if variable is not None and value is not None:
            os.environ[variable] = value


def run_until_stopped(service: Service) -> None:
    """Say where the service is, and return at Ctrl-C or SIGTERM."""
    with _stop_signals() as stop:
        say(f"serve: open {service.url}/ in a browser; Ctrl-C stops it")
        while not stop.wait(1.0):
            pass
        say("serve: stopping")


def _needs(config: ServeJob) -> list[Need]:
    searcher, front, shares = config.searcher, config.front, config.shares
    actors = [Need("shares", searcher.replicas * shares.count, num_cpus=shares.num_cpus)] if shares.count > 1 else []
    return [
        Need("searcher", searcher.replicas, num_cpus=searcher.num_cpus, num_gpus=searcher.num_gpus),
        *actors,
        Need("front", front.replicas, num_cpus=front.num_cpus),
    ]


def _running_http_options() -> tuple[str, int] | None:
    """(host, port) of a Ray Serve that runs in this cluster already, else None."""
    from ray.serve.context import _get_global_client  # Serve's public interface does not tell

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (str(client.http_config.host), int(client.http_config.port))


def _shared_port(config: ServeConfig, running: tuple[str, int]) -> int:
    from ray import serve

    host, port = running
    if APPLICATION in serve.status().applications:
        raise ResourceError(f"a search service runs in this cluster already, on port {port}; stop it first")
    if config.token_env is None and not is_loopback(host):
        raise ConfigError(f"Ray Serve runs in this cluster already, bound to {host}; set serve.token_env, or shut it down first")
    if host != config.host or config.port not in (0, port):
        raise ResourceError(
            f"Ray Serve runs in this cluster already at {host}:{port}, and cannot be moved; set serve.host and serve.port to those, "
            "or shut it down (serve shutdown)"
        )
    return port


def _free_port(config: ServeConfig) -> int:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, or a port counts as taken for a minute after its last service stopped. A listening one is still found.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise ConfigError(
                f"serve.host {config.host}, serve.port {config.port}: cannot be bound ({error.strerror}); choose another port, or 0 for "
                "a free one"
            ) from None
        return int(probe.getsockname()[1])


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


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


def _wait_until_healthy(url: str, deadline: float) -> None:
    import httpx

    problem = "no answer"
    while time.monotonic() < deadline:
        try:
            # Never through a proxy of the environment: the service is on this machine.
            reply = httpx.get(f"{url}/health", timeout=10, trust_env=False)
            if reply.status_code == 200:
                return
            problem = f"status {reply.status_code}: {reply.text[:200]}"
        except httpx.HTTPError as error:
            problem = str(error)
        time.sleep(0.2)
    raise ResourceError(f"{url}/health does not answer in time ({problem}); raise start_timeout_s, or see Ray Serve's logs")


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of killing the process before Serve is down."""
    stop = threading.Event()

    def set_stop(_: int, __: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, set_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
