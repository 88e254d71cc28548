"""A service in a rehearsal: it starts, is asked in words and by a picture of its answer, and stops. Knows the serve job and its client."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reid_ray.errors import DataError
from reid_ray.serve.access.roles import AccessRole
from reid_ray.serve.access.tokens.token_file import create_token
from reid_ray.serve.client import SearchClient
from reid_ray.serve.config import ServeJob
from reid_ray.serve.job import start_service

_WORDS = "a woman in a red coat and blue trousers"


def ask_service(config: ServeJob) -> dict[str, Any]:
    """Start what `config` says on the Ray that runs, ask it, stop it; returns counts and facts as a manifest has them.

    Raises:
        DataError: an answer has no hits.
    """
    with _tokens(config) as (asked, token), start_service(asked) as service, SearchClient(service.url, token=token) as search:
        found = search.text(_WORDS, k=5)["hits"]
        if not found:
            raise DataError(f"index: {config.index} gave no hit for a question in words; index images first")
        picture = io.BytesIO()
        search.thumbnail(found[0]).save(picture, format="PNG")
        again = search.image(picture.getvalue(), k=5)["hits"]
        facts = {"text_hits": len(found), "image_hits": len(again), "gallery": search.info()["items"]}
    return {"counts": {"read": 2, "written": len(found) + len(again), "failed": {}, "left_out": {}}, "facts": facts}


@contextmanager
def _tokens(config: ServeJob) -> Iterator[tuple[ServeJob, str | None]]:
    """The configuration with state and tokens of its own for the time of the block, and a token where it asks for tokens."""
    with tempfile.TemporaryDirectory(prefix="reid-ray-service-") as folder:
        token, access = None, {"open_ray": "everyone on this network may run code here"}  # what it serves are a few synthetic people
        if config.access.tokens is not None:
            file = Path(folder) / "tokens.json"
            token = create_token(file, "rehearsal", AccessRole.SEARCH, days=1)
            access["tokens"] = str(file)
        yield config.model_copy(update={"state": f"{folder}/state", "access": config.access.model_copy(update=access)}), token
