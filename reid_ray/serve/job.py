"""The serve job: starts the retrieval service in this process or on Ray Serve, waits until it answers searches, and stops it.

Everything that can be refused is refused before anything starts, and a service that does not come up is an error, not an endless wait.
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from reid_ray.config.called import called
from reid_ray.errors import ResourceError
from reid_ray.serve.config import ServeJob
from reid_ray.serve.opened_access import check_access
from reid_ray.terminal.own_lines import say


class Service:
    """A running service; also a context manager.

    Args:
        url: where this machine asks it.
        parts: what is taken down with it.
        others: how other machines reach it, in words; None where its address says so, or where none does.
    """

    def __init__(self, url: str, parts: contextlib.ExitStack, others: str | None = None) -> None:
        self.url, self.others, self._parts = url, others, parts

    def stop(self) -> None:
        """Take the service down, and Ray Serve too if it was started for it."""
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def start_service(config: ServeJob) -> Service:
    """Start the service, and return once it answers searches; on Ray on the session that is running.

    Raises:
        ConfigError: the port is taken, or certificate and key cannot be used.
        DataError: the tokens file cannot be read; gallery or encoder are missing, or do not belong together.
        ResourceError: the cluster cannot hold the replicas, Serve runs already with other options, or the service does not come up.
    """
    from reid_ray.serve.on_ray.on_serve import ray_service
    from reid_ray.serve.process.in_process import process_service

    with contextlib.ExitStack() as parts:
        deadline = time.monotonic() + config.start_timeout_s
        port = parts.enter_context(process_service(config) if config.runs_on == "process" else ray_service(config, deadline))
        scheme = "https" if config.tls.certificate is not None else "http"
        url = _url(scheme, config.serve.host, port)
        _wait_until_ready(url, deadline)
        return Service(url, parts.pop_all(), reached_by_others(scheme, config.serve.host, port))


def run_serve(config: ServeJob) -> dict[str, Any]:
    """Serve until Ctrl-C or SIGTERM, then shut down in order."""
    check_access(config)  # what cannot be used is refused before Ray starts
    with contextlib.ExitStack() as stack:
        if config.runs_on == "ray":
            from reid_ray.runtime import ray_session

            stack.enter_context(ray_session(config.ray))
        service = stack.enter_context(start_service(config))
        run_until_stopped(service)
    return {"url": service.url}


def run_until_stopped(service: Service) -> None:
    """Say where the service is, and return at Ctrl-C or SIGTERM."""
    with _stop_signals() as stop:
        say(f"serve: open {service.url}/ in a browser; Ctrl-C stops it")
        if service.others is not None:
            say(f"serve: {service.others}")
        gc.freeze()  # what libraries made stays: the collector need not look through it beside searches
        while not stop.wait(1.0):
            pass
        gc.unfreeze()  # or they count it as lost
        say("serve: stopping")


def reached_by_others(scheme: str, host: str, port: int) -> str | None:
    """How other machines reach what listens at `host`; None unless that is every interface of this machine, which no address names."""
    if _own_address(host) is None:
        return None
    by = "a name that its certificate has" if scheme == "https" else "its address in their network"
    named = f"{scheme}://{socket.gethostname()}:{port}/"
    return f"it listens on every interface of this machine ({host}): others open {named}, or this machine by {by}"


def _url(scheme: str, host: str, port: int) -> str:
    reachable = _own_address(host) or host
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def _own_address(host: str) -> str | None:
    """Where this machine finds what listens on every interface (0.0.0.0, ::); None where `host` is an address or a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return {4: "127.0.0.1", 6: "::1"}[address.version] if address.is_unspecified else None


def _wait_until_ready(url: str, deadline: float) -> None:
    import httpx

    problem = "no answer"
    while time.monotonic() < deadline:
        try:
            # Never through a proxy of the environment: the service is on this machine. Nothing secret is sent, and the certificate has the
            # name that others ask it by.
            reply = httpx.get(f"{url}/v1/ready", timeout=10, trust_env=False, verify=False)
            if reply.status_code == 200:
                return
            problem = f"status {reply.status_code}: {reply.text[:200]}"
        except httpx.HTTPError as error:
            problem = str(error)
        time.sleep(0.2)
    raise ResourceError(f"{url}/v1/ready does not answer in time ({problem}); raise {called('start_timeout_s')}, or see the logs")


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
