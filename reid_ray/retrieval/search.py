"""Search engine: an encoder and its gallery index, answering batches of text and image queries.

Knows encoding, the index and what a row is; not HTTP, Ray or who asks. One bad query is refused by itself and never fails the
batch it came in.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image

from reid_ray.data.images import DEFAULT_MAX_PIXELS, BadImageError, decode_image
from reid_ray.errors import DataError
from reid_ray.model.encoder import Encoder
from reid_ray.model.pretrained import load_encoder, split_encoder
from reid_ray.retrieval.index.faiss_index import GalleryIndex, read_facts, set_search_threads


@dataclass(frozen=True)
class Query:
    """One question: a text or an encoded image, how many hits, and from which cameras (None: all)."""

    k: int
    text: str | None = None
    image: bytes | None = None
    camera_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Hit:
    """One gallery item; `row` names its thumbnail, `score` is a cosine."""

    rank: int
    row: int
    score: float
    image_id: str
    person_id: int | None
    camera_id: int | None
    dataset: str | None
    split: str | None
    synthetic: bool | None


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


class SearchEngine:
    """Answers queries over one index with the encoder that made it."""

    def __init__(self, encoder: Encoder, index: GalleryIndex, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
        self._encoder, self._index, self._max_pixels = encoder, index, max_pixels
        self._what = {name: index.items[name] for name in ("image_id", "person_id", "camera_id", "dataset", "split", "synthetic")}
        self._cameras = sorted({camera for camera in self._what["camera_id"].unique().to_pylist() if camera is not None})

    @classmethod
    def load(cls, index: str, encoder: str | None, *, threads: int, device: str, batch_size: int, max_pixels: int) -> Self:
        """Load both from folders; `encoder` None takes the one that the index remembers.

        Raises:
            DataError: a folder is missing, or index and encoder do not belong together.
        """
        import torch

        torch.set_num_threads(threads)
        set_search_threads(threads)
        loaded = load_encoder(encoder_of(index, encoder), device=device, batch_size=batch_size)
        return cls(loaded, GalleryIndex.load(index, loaded), max_pixels=max_pixels)

    def describe(self) -> dict[str, Any]:
        """What can be searched: number of items, cameras, dimension, kind of index, encoder."""
        return {
            "items": len(self._index),
            "cameras": self._cameras,
            "dim": self._index.dim,
            "index_kind": self._index.config.kind,
            "encoder_fingerprint": self._index.encoder_fingerprint,
        }

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """One answer per query, in order; texts, and images, are each encoded in one batch."""
        started = time.perf_counter()
        vectors, refused, truncated = self._encode(queries)
        encoded = time.perf_counter()
        hits = self._search(queries, vectors)
        searched = time.perf_counter()
        encode_ms, search_ms = (encoded - started) * 1e3, (searched - encoded) * 1e3
        return [
            Answer(
                hits.get(at, ()),
                encode_ms=encode_ms,
                search_ms=search_ms,
                batch=len(queries),
                gallery=len(self._index),
                refused=refused.get(at),
                truncated=at in truncated,
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
        hits = {}
        for (k, camera_ids), members in alike.items():
            score_QK, row_QK = self._index.search(np.stack([vectors[at] for at in members]), k, camera_ids=camera_ids)
            for at, score_K, row_K in zip(members, score_QK, row_QK, strict=True):
                found = row_K >= 0
                hits[at] = self._hits(score_K[found], row_K[found])
        return hits

    def _hits(self, score_K: np.ndarray, row_K: np.ndarray) -> tuple[Hit, ...]:
        columns = {name: column.take(row_K).to_pylist() for name, column in self._what.items()}
        return tuple(
            Hit(rank=at + 1, row=int(row), score=float(score), **{name: values[at] for name, values in columns.items()})
            for at, (score, row) in enumerate(zip(score_K, row_K, strict=True))
        )


def encoder_of(index: str, encoder: str | None) -> str:
    """The encoder's folder: `encoder` if given, else the one that the index remembers.

    Raises:
        DataError: the index does not say, or what it says is not there (any more).
    """
    if encoder is not None:
        return encoder
    remembered = read_facts(index)["encoder_path"]
    if remembered is None or not split_encoder(remembered)[0].is_dir():
        raise DataError(f"{index}: remembers encoder {remembered}, which is not there; set encoder to its folder")
    return os.fspath(remembered)
