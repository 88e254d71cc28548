"""The search job: crops become a gallery, and the gallery a page at an address. It tells by what to search, and asks nothing itself.

Knows order and words; what an index or a service is, their jobs know.
"""

from __future__ import annotations

import time
from typing import Any

from reid_ray.demo.first_search.config import SearchJob
from reid_ray.retrieval.index.job import run_index
from reid_ray.serve.job import run_until_stopped, start_service
from reid_ray.serve.opened_access import check_access
from reid_ray.serve.process.http_thread import bound_socket
from reid_ray.terminal.own_lines import say

SHIPPED = "builtin:tiny-encoder"


def run_search(config: SearchJob) -> dict[str, Any]:
    """Run the job until Ctrl-C; returns the manifest of the gallery.

    Raises:
        ConfigError: the port is taken, which is told before anything is embedded; and as the serve job.
        DataError: as the index job.
    """
    started = time.perf_counter()
    check_access(config.serve)
    bound_socket(config.serve.serve.host, config.serve.serve.port).close()
    manifest = run_index(config.index)
    with start_service(config.serve) as service:
        say(how_to_search(manifest["counts"]["written"], manifest["counts"]["read"], time.perf_counter() - started, str(config.index.encoder)))
        if config.keep_serving:
            run_until_stopped(service)
        else:
            say(f"serve: answered at {service.url}/, and is stopped")
    return manifest


def how_to_search(found: int, of: int, seconds: float, encoder: str) -> str:
    """What a user is told of her gallery: by pictures first, and what words are good for."""
    words = (
        f"by words: the box is there, too, but {SHIPPED} has read nothing but captions of drawn people: expect colours at best.\n"
        "          An encoder that knows photographs: --encoder openai/clip-vit-base-patch16, or the model/ folder of a training"
        if encoder == SHIPPED
        else f"by words: as well as {encoder} reads them"
    )
    return (
        f"search: {found} of {of} pictures can be searched, after {seconds:.0f} s\n"
        "by picture: drop one on the page, or press More like this on one that is there\n" + words
    )
