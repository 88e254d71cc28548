"""uvicorn in this process, on a socket that is bound before anything is loaded, in a thread of its own.

The port is open and /v1/live answers while model and gallery are still being read; /v1/ready says when searches succeed. Knows sockets and
threads; not what is asked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from reid_ray.config.called import called
from reid_ray.errors import ConfigError, ReidRayError, ResourceError
from reid_ray.serve.access.config import TlsConfig

_STOP_S = 10.0  # that requests in hand are given at the end


def bound_socket(host: str, port: int, *, key: str | None = None, shared: bool = False) -> socket.socket:
    """A listening socket; port 0 takes a free one. Several may listen at a `shared` port if all say so; Linux divides the callers.

    Raises:
        ConfigError: it cannot be bound; `key` is what the user calls the port, where that is no key serve.port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    # As servers do, or a port counts as taken for a minute after its last service stopped. A listening one is still found.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind((host, port))
        found.listen(2048)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"{key or called('serve.port')} {port}: cannot be bound at {host} ({error.strerror}); choose another port, or 0 for a free one"
        ) from None
    return found


@contextlib.contextmanager
def running_server(application: Any, listening: socket.socket, tls: TlsConfig | None = None) -> Iterator[ServerThread]:
    """A server that answers on a socket until the end of the block; requests in hand are finished."""
    server = ServerThread(application, listening, tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class ServerThread:
    """uvicorn in a thread."""

    def __init__(self, application: Any, listening: socket.socket, tls: TlsConfig | None) -> None:
        import uvicorn

        from reid_ray.serve.process.strict_http import StrictHttp

        config = uvicorn.Config(
            application,
            http=StrictHttp,
            log_config=None,
            access_log=False,  # what people search for does not belong in a log
            server_header=False,
            proxy_headers=False,  # whoever sends them is believed, or the address would be anybody's to choose
            ssl_certfile=None if tls is None else tls.certificate,
            ssl_keyfile=None if tls is None else tls.key,
            lifespan="off",
            timeout_graceful_shutdown=int(_STOP_S),
            ws="none",
        )
        self._listening, self._server = listening, uvicorn.Server(config)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Answer from now on.

        Raises:
            ResourceError: the server does not start.
        """
        self._thread.start()
        end = time.monotonic() + 30
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise ResourceError(f"the HTTP server does not start ({self._failure}); the log says why")
            time.sleep(0.005)

    def stop(self) -> None:
        """Finish what is in hand, and end; once more does nothing."""
        self._server.should_exit = True
        self._thread.join(_STOP_S + 5)
        self._listening.close()
        if self._thread.is_alive():
            raise ReidRayError("the HTTP server does not end; stop the process")

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listening])
        except BaseException as error:  # noqa: BLE001 - told by start
            self._failure = error
