"""The retrieval service in one process: the port first, then the application, then model and gallery."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from reid_ray.serve.config import ServeJob
from reid_ray.serve.opened_access import check_access, service_access
from reid_ray.serve.process.doorway import Doorway
from reid_ray.serve.process.http_thread import bound_socket, running_server


@contextlib.contextmanager
def process_service(config: ServeJob) -> Iterator[int]:
    """Serve in threads of this process until the end of the block, which begins once searches are answered; gives the port.

    Raises:
        ConfigError: the port is taken, or certificate and key cannot be used.
        DataError: the tokens file cannot be read; gallery or encoder are missing, or do not belong together.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(bound_socket(config.serve.host, config.serve.port))
        check_access(config)
        doorway = Doorway()
        server = stack.enter_context(running_server(doorway, listening, config.tls))
        # Only now what takes a second to import: a taken port is told at once, and whoever watches the process sees that it lives.
        from reid_ray.serve.api.application import make_api
        from reid_ray.serve.opened_writing import open_writing, start_writing, writing_routes
        from reid_ray.serve.operations.search_operations import open_operations

        operations = open_operations(config)
        stack.callback(operations.close)
        access = service_access(config)
        stack.callback(access.close)
        writing = open_writing(config)
        stack.callback(writing.close)
        stack.callback(server.stop)  # before what it asks is closed
        doorway.application = make_api(operations, access=access, further=writing_routes(writing), access_log=config.access_log)
        operations.load()
        start_writing(writing, operations.engine, access.audit)
        yield int(listening.getsockname()[1])
