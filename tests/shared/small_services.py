"""Retrieval services of a few items for tests: the real application over an encoder that reads the answer off the question."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from small_galleries import make_gallery

from reid_ray.data.images import encode_jpeg
from reid_ray.retrieval.search import SearchEngine
from reid_ray.retrieval.searched_folder import SearchedGallery
from reid_ray.serve.config import SearcherConfig, ServeConfig
from reid_ray.serve.operations.search_operations import SearchOperations

ITEMS, CAMERAS, DIM = 12, 3, 16
VECTORS = np.eye(ITEMS, DIM, dtype=np.float32)


class Reading:
    """A text names the row that it is nearest to, and whether it is NaN; a picture's red does."""

    dim, context, reads_texts, fingerprint = DIM, 5, True, "e"

    def encode_texts(self, texts):
        return np.stack([np.full(DIM, np.nan, np.float32) if "nan" in text else VECTORS[int(text.split()[0])] for text in texts])

    def encode_and_measure(self, texts):
        return self.encode_texts(texts), np.array([len(text.split()) for text in texts])

    def encode_images(self, pictures):
        return np.stack([VECTORS[round(np.asarray(picture)[0, 0, 0] / 20)] for picture in pictures])


def red_picture(row: int) -> Image.Image:
    """A picture that is nearest to a row."""
    return Image.new("RGB", (8, 8), (20 * row, 0, 0))


def red_jpeg(row: int) -> bytes:
    """The same, encoded."""
    return encode_jpeg(red_picture(row), quality=100)


def small_gallery(folder: Path) -> Path:
    """A gallery of ITEMS items: item n has vector n, person n // 2 and camera n % CAMERAS."""
    rows = [
        {"item_id": f"{n}", "image_id": f"{n}.jpg", "person_id": n // 2, "camera_id": n % CAMERAS, "thumbnail": red_jpeg(n)}
        for n in range(ITEMS)
    ]
    return make_gallery(folder, VECTORS, rows)


def small_engine(folder: Path, encoder: Any = None) -> SearchEngine:
    """An engine over a small gallery in `folder`."""
    return SearchEngine(encoder or Reading(), SearchedGallery(folder))


def small_operations(folder: Path, limits: ServeConfig | None = None, *, encoder: Any = None, **batching: Any) -> SearchOperations:
    """The operations over a small gallery that lies in `folder` already."""
    operations = SearchOperations(lambda: small_engine(folder, encoder), limits or ServeConfig(), SearcherConfig(**batching))
    operations.load()
    return operations


def sent(api: Any, method: str, path: str, *, client: str = "127.0.0.1", host: str = "localhost", **options: Any) -> httpx.Response:
    """The application's reply to one request of a client at an address."""

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=api, client=(client, 5), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
            return await http.request(method, path, **options)

    return asyncio.run(call())
