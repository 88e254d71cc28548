"""Search engine: an encoder and the gallery of its vectors, answering batches of text and image queries.

Knows encoding and which queries are searched together; not HTTP, Ray or who asks. One bad query is refused by itself and never fails the
batch it came in.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image

from reid_ray.data.images import DEFAULT_MAX_PIXELS, BadImageError, decode_image
from reid_ray.model.encoder import Encoder
from reid_ray.model.pretrained import load_encoder
from reid_ray.retrieval.divided_gallery import SharesConfig
from reid_ray.retrieval.searched_folder import Hit, SearchedGallery, encoder_of, open_gallery


@dataclass(frozen=True)
class Query:
    """One question: a text or an encoded image, how many hits, and from which cameras (None: all)."""

    k: int
    text: str | None = None
    image: bytes | None = None
    camera_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Answer:
    """The hits of one query, best first; or, where `refused` is set, why there are none."""

    hits: tuple[Hit, ...]
    encode_ms: float
    search_ms: float
    batch: int  # queries answered together
    gallery: int  # items searched, before any filter
    refused: str | None = None
    truncated: bool = False  # the model could not read the text to its end
    missing: tuple[int, ...] = ()  # numbers of the gallery's shares that were lost, and not searched


class SearchEngine:
    """Answers queries over one gallery with the encoder that made it."""

    def __init__(self, encoder: Encoder, gallery: SearchedGallery, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self._encoder, self._gallery, self._max_pixels = encoder, gallery, max_pixels

    @classmethod
    def load(
        cls,
        index: str,
        encoder: str | None,
        *,
        threads: int,
        device: str,
        batch_size: int,
        max_pixels: int,
        shares: SharesConfig | None = None,
    ) -> Self:
        """Load both from folders; `encoder` None takes the one that the index job noted.

        Raises:
            DataError: a folder is missing, or gallery and encoder do not belong together.
        """
        import torch

        torch.set_num_threads(threads)
        loaded = load_encoder(encoder_of(index, encoder), device=device, batch_size=batch_size)
        return cls(loaded, open_gallery(index, loaded, shares or SharesConfig()), max_pixels=max_pixels)

    def describe(self) -> dict[str, Any]:
        """What can be searched: number of items, cameras, dimension, kind, encoder."""
        return self._gallery.describe()

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """One answer per query, in order; texts, and images, are each encoded in one batch."""
        started = time.perf_counter()
        vectors, refused, truncated = self._encode(queries)
        encoded = time.perf_counter()
        hits = self._search(queries, vectors)
        searched = time.perf_counter()
        gallery = len(self._gallery)
        encode_ms, search_ms = (encoded - started) * 1e3, (searched - encoded) * 1e3
        return [
            Answer(
                hits.get(at, ()),
                encode_ms=encode_ms,
                search_ms=search_ms,
                batch=len(queries),
                gallery=gallery,
                refused=refused.get(at),
                truncated=at in truncated,
                missing=self._gallery.missing,
            )
            for at in range(len(queries))
        ]

    def _encode(self, queries: Sequence[Query]) -> tuple[dict[int, np.ndarray], dict[int, str], set[int]]:
        """Vectors by query, why others have none, and the queries whose text was cut."""
        texts: dict[int, str] = {}
        pictures: dict[int, Image.Image] = {}
        refused: dict[int, str] = {}
        truncated: set[int] = set()
        for at, query in enumerate(queries):
            if query.text is not None and not self._encoder.reads_texts:
                refused[at] = (
                    "no_texts: the encoder of this index knows pictures alone; search by an image, or index with one that reads texts"
                )
                continue
            if query.text is not None:
                texts[at] = query.text
                continue
            try:
                pictures[at] = decode_image(query.image, max_pixels=self._max_pixels)
            except BadImageError as error:
                refused[at] = str(error)
        vectors: dict[int, np.ndarray] = {}
        if texts:
            vector_ND, tokens_N = self._encoder.encode_and_measure(list(texts.values()))
            vectors.update(zip(texts, vector_ND, strict=True))
            truncated.update(at for at, tokens in zip(texts, tokens_N, strict=True) if tokens > self._encoder.context)
        if pictures:
            vectors.update(zip(pictures, self._encoder.encode_images(list(pictures.values())), strict=True))
        for at in [at for at, vector in vectors.items() if not np.isfinite(vector).all()]:
            refused[at] = "not_finite: the encoder gave NaN or infinity for this query"
            del vectors[at]
        return vectors, refused, truncated

    def _search(self, queries: Sequence[Query], vectors: dict[int, np.ndarray]) -> dict[int, tuple[Hit, ...]]:
        # Queries that differ in k or cameras are searched apart, so that no answer depends on what it was batched with.
        alike: dict[tuple[int, tuple[int, ...] | None], list[int]] = defaultdict(list)
        for at in vectors:
            alike[queries[at].k, queries[at].camera_ids].append(at)
        hits: dict[int, tuple[Hit, ...]] = {}
        for (k, camera_ids), members in alike.items():
            found = self._gallery.search(np.stack([vectors[at] for at in members]), k, camera_ids=camera_ids)
            hits.update(zip(members, found, strict=True))
        return hits
