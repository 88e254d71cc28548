"""Search engine: an encoder and the gallery of its vectors, answering batches of queries.

Knows encoding, the sum of clues, and which queries are searched together; not HTTP, Ray or who asks. One bad query is refused by itself and
never fails the batch it came in.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from PIL import Image

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.nearest.cursors import Page
from reid_ray.model.encoder import Encoder
from reid_ray.model.pretrained import load_encoder
from reid_ray.retrieval.clue_sum import summed_vector
from reid_ray.retrieval.divided_gallery import SharesConfig
from reid_ray.retrieval.encoder_identity import knows_drawn_people_only
from reid_ray.retrieval.generation_turns import TurnKeeper
from reid_ray.retrieval.query import Answer, Clue, Query
from reid_ray.retrieval.searched_folder import SearchedGallery, encoder_of, open_gallery

_NO_TEXTS = "no_texts: the encoder of this gallery knows pictures alone; search by a picture, or make the gallery with one that reads texts"


class SearchEngine:
    """Answers queries over one gallery with the encoder that made it."""

    def __init__(self, encoder: Encoder, gallery: SearchedGallery, *, drawn_people_only: bool = False) -> None:
        self.encoder, self.gallery, self._drawn_people_only = encoder, gallery, drawn_people_only
        self._searching = threading.Lock()  # batches may be encoded side by side, elsewhere

    @classmethod
    def load(
        cls,
        index: str,
        encoder: str | None,
        *,
        threads: int,
        device: str,
        batch_size: int,
        shares: SharesConfig | None = None,
        turns: TurnKeeper | None = None,
        replica: str = "",
        gallery_device: str | None = None,
    ) -> Self:
        """Load both from folders; `encoder` None takes the one that the index job noted; `turns` as SearchedGallery has it, and
        `gallery_device` its device.

        Raises:
            DataError: a folder is missing, or gallery and encoder do not belong together.
        """
        import torch

        torch.set_num_threads(threads)
        place = encoder_of(index, encoder)
        return cls.over(
            index,
            load_encoder(place, device=device, batch_size=batch_size),
            drawn_people_only=knows_drawn_people_only(place),
            threads=threads,
            shares=shares,
            turns=turns,
            replica=replica,
            gallery_device=gallery_device,
        )

    @classmethod
    def over(
        cls,
        index: str,
        encoder: Encoder,
        *,
        drawn_people_only: bool,
        threads: int,
        shares: SharesConfig | None = None,
        turns: TurnKeeper | None = None,
        replica: str = "",
        gallery_device: str | None = None,
    ) -> Self:
        """Load the gallery for an encoder that is there; the rest as `load` has it.

        Raises:
            DataError: there is no gallery, or it does not belong to the encoder.
        """
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads, user_api="blas")  # or numpy's threads spin for a while after each search, beside the encoder
        gallery = open_gallery(index, encoder, shares or SharesConfig(), turns=turns, replica=replica, device=gallery_device)
        return cls(encoder, gallery, drawn_people_only=drawn_people_only)

    def describe(self) -> dict[str, Any]:
        """What can be searched: number of items, generation, columns, dimension, kind, encoder and what it knows."""
        knows = {"reads_texts": self.encoder.reads_texts, "drawn_people_only": self._drawn_people_only}
        return {**self.gallery.describe(), **knows}

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """One answer per query, in order; texts, and pictures, are each encoded in one batch."""
        started = time.perf_counter()
        asked, _ = self._encoded(queries)
        encoded = time.perf_counter()
        with self._searching:
            pages = self._search(queries, asked)
        searched = time.perf_counter()
        gallery, generation = len(self.gallery), self.gallery.generation
        encode_ms, search_ms = (encoded - started) * 1e3, (searched - encoded) * 1e3
        return [
            Answer(
                tuple(pages[at].hits) if at in pages else (),
                encode_ms=encode_ms,
                search_ms=search_ms,
                batch=len(queries),
                gallery=gallery,
                generation=generation,
                cursor=pages[at].cursor if at in pages else None,
                refused=asked.refused.get(at),
                truncated=at in asked.truncated,
                missing=pages[at].missing if at in pages else (),
            )
            for at in range(len(queries))
        ]

    def clue_vectors(self, clues: Sequence[Clue]) -> list[np.ndarray]:
        """The unit vector of each clue, [D].

        Raises:
            DataError: why one has none, or why nothing is left of their sum.
        """
        asked, known = self._encoded([Query(tuple(clues), 1)])
        if asked.refused:
            raise DataError(asked.refused[0])
        return [vector_D for clue in clues if (vector_D := known.of(clue)) is not None]

    def _encoded(self, queries: Sequence[Query]) -> tuple[_Encoded, _Known]:
        asked = _Encoded()
        texts: dict[str, None] = {}
        pictures: dict[int, Image.Image] = {}  # by identity: one clue's picture is no other's
        items: dict[str, None] = {}
        for at, query in enumerate(queries):
            if not self.encoder.reads_texts and any(clue.text is not None for clue in query.clues):
                asked.refused[at] = _NO_TEXTS
                continue
            for clue in query.clues:
                if clue.text is not None:
                    texts[clue.text] = None
                elif clue.picture is not None:
                    pictures[id(clue.picture)] = clue.picture
                elif clue.item_id is not None:
                    items[clue.item_id] = None
        known = self._vectors(list(texts), pictures, list(items))
        for at, query in enumerate(queries):
            if at not in asked.refused:
                self._sum(at, query, known, asked)
        return asked, known

    def _vectors(self, texts: Sequence[str], pictures: dict[int, Image.Image], items: Sequence[str]) -> _Known:
        known = _Known()
        if texts:
            vector_ND, tokens_N = self.encoder.encode_and_measure(texts)
            known.texts = dict(zip(texts, vector_ND, strict=True))
            known.cut = {text for text, tokens in zip(texts, tokens_N, strict=True) if tokens > self.encoder.context}
        if pictures:
            known.pictures = dict(zip(pictures, self.encoder.encode_images(list(pictures.values())), strict=True))
        if items:
            vector_ND, is_there = self.gallery.vectors_there(items)
            known.items = {item: vector_D for item, vector_D, found in zip(items, vector_ND, is_there, strict=True) if found}
        return known

    def _sum(self, at: int, query: Query, known: _Known, asked: _Encoded) -> None:
        """The unit vector of a query, or why it has none."""
        vectors = [known.of(clue) for clue in query.clues]
        lacking = next((number for number, vector_D in enumerate(vectors, 1) if vector_D is None), None)
        if lacking is not None:
            asked.refused[at] = f"no_item: clue {lacking} names no item of the gallery (any more); search for another"
            return
        try:
            asked.vectors[at] = summed_vector(
                [vector_D for vector_D in vectors if vector_D is not None], [clue.weight for clue in query.clues]
            )
        except DataError as error:
            asked.refused[at] = str(error)
            return
        if any(clue.text in known.cut for clue in query.clues if clue.text is not None):
            asked.truncated.add(at)

    def _search(self, queries: Sequence[Query], asked: _Encoded) -> dict[int, Page]:
        # Queries that differ in k, filter or page are searched apart, so that no answer depends on what it was batched with.
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for at in asked.vectors:
            groups[queries[at].alike()].append(at)
        pages: dict[int, Page] = {}
        for members in groups.values():
            try:
                found = self.gallery.pages(np.stack([asked.vectors[at] for at in members]), queries[members[0]])
            except (ConfigError, DataError) as error:  # of what they have in common: a filter, a cursor
                asked.refused.update(dict.fromkeys(members, str(error)))
            else:
                pages.update(zip(members, found, strict=True))
        return pages


@dataclass
class _Encoded:
    """By the number of a query: its unit vector, or why it has none, and whether a text of it was cut."""

    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    truncated: set[int] = field(default_factory=set)


@dataclass
class _Known:
    """Vectors of the clues of a batch."""

    texts: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    items: dict[str, np.ndarray] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)

    def of(self, clue: Clue) -> np.ndarray | None:
        if clue.text is not None:
            return self.texts[clue.text]
        if clue.picture is not None:
            return self.pictures[id(clue.picture)]
        return self.items.get(clue.item_id or "")
