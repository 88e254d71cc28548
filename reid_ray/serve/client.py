"""HTTP client of the search service, for scripts.

Knows the routes and the token; not Ray, models or indexes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from PIL import Image

from reid_ray.errors import ReidRayError
from reid_ray.versions import check_json


class SearchClient:
    """Asks a running service, as in `with SearchClient(url) as search: search.text("a man in a green coat", k=5)["hits"]`."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 60.0) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Never through a proxy of the environment: it would see the token.
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)

    def search(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question, as in api.schema.Question and SearchOut."""
        return self._json(self._http.post("/v1/search", json=dict(question)))

    def text(self, text: str, *, k: int) -> dict[str, Any]:
        """The answer to a text query, as in api.schema.SearchOut."""
        return self.search({"text": text, "k": k})

    def image(self, data: bytes, *, k: int) -> dict[str, Any]:
        """The answer to an image query (an encoded picture), as in api.schema.SearchOut."""
        return self._json(self._http.post("/v1/search/upload", files={"image": data}, data={"question": json.dumps({"k": k})}))

    def info(self) -> dict[str, Any]:
        """What the service searches, and its limits, as in api.schema.InfoOut.

        Raises:
            DataError: the service is of a newer version, whose answers this client may not understand.
        """
        facts = self._json(self._http.get("/v1/info"))
        check_json("service", facts, origin=self._http.base_url)
        return facts

    def thumbnail(self, hit: dict[str, Any]) -> Image.Image:
        """The small picture of a hit."""
        reply = self._http.get(hit["thumbnail"])
        self._check(reply)
        return Image.open(io.BytesIO(reply.content)).convert("RGB")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def _json(self, reply: Any) -> dict[str, Any]:
        self._check(reply)
        answer: dict[str, Any] = reply.json()
        return answer

    @staticmethod
    def _check(reply: Any) -> None:
        if reply.status_code != 200:
            raise ReidRayError(f"{reply.request.url}: the service answered {reply.status_code}: {reply.text[:500]}")
