"""A service in a rehearsal: it starts, is asked in words and by a picture of its answer, and stops. Knows the serve job and its client."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reid_ray.errors import DataError
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import start_service

_WORDS = "a woman in a red coat and blue trousers"


def ask_service(config: ServeJob) -> dict[str, Any]:
    """Start what `config` says on the Ray that runs, ask it, stop it; returns counts and facts as a manifest has them.

    Raises:
        DataError: an answer has no hits.
    """
    with _token(config.serve.token_env) as token, start_service(config) as service, SearchClient(service.url, token=token) as search:
        found = search.text(_WORDS, k=5)["hits"]
        if not found:
            raise DataError(f"index: {config.index} gave no hit for a question in words; index images first")
        picture = io.BytesIO()
        search.thumbnail(found[0]).save(picture, format="PNG")
        again = search.image(picture.getvalue(), k=5)["hits"]
        facts = {"text_hits": len(found), "image_hits": len(again), "gallery": search.info()["items"]}
    return {"counts": {"read": 2, "written": len(found) + len(again), "failed": {}}, "facts": facts}


@contextmanager
def _token(variable: str | None) -> Iterator[str | None]:
    """A token in the environment variable that is to hold one, for the time of the block."""
    if variable is None:
        yield None
        return
    before, token = os.environ.get(variable), secrets.token_urlsafe(32)
    os.environ[variable] = token
    try:
        yield token
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
