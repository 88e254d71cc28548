"""Embedding of few images or texts in this process: what actors are to a pool (embed_stream.py), called with the same batches, without Ray.

Knows batches and threads; not what becomes of the vectors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from reid_ray.config.common import EmbedPoolConfig
from reid_ray.data.images import DEFAULT_MAX_PIXELS
from reid_ray.retrieval.embed_stream import ImageActor, TextActor
from reid_ray.retrieval.encoder_identity import located_encoder


def embedded_images(
    images: Iterable[pa.Table],
    encoder_path: str,
    pool: EmbedPoolConfig,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    thumbnail_height: int | None = None,
    include_synthetic: bool = True,
) -> Iterator[pa.Table]:
    """As embed_images, in this process: the rows of an actor that is given the same rows in the same batches."""
    options = {"max_pixels": max_pixels, "thumbnail_height": thumbnail_height, "include_synthetic": include_synthetic}
    return _embed_here(images, ImageActor, encoder_path, pool, options)


def embedded_texts(captions: Iterable[pa.Table], encoder_path: str, pool: EmbedPoolConfig) -> Iterator[pa.Table]:
    """As embed_texts, in this process."""
    return _embed_here(captions, TextActor, encoder_path, pool, {})


def _embed_here(
    tables: Iterable[pa.Table], actor: type, encoder_path: str, pool: EmbedPoolConfig, options: dict[str, Any]
) -> Iterator[pa.Table]:
    import torch

    before = torch.get_num_threads()
    embed = actor(encoder_path=located_encoder(encoder_path), pool=pool, **options)
    torch.set_num_threads(min(max(1, int(pool.num_cpus * pool.replicas)), os.cpu_count() or 1))  # what the actors would have together
    try:
        for batch in _batches(tables, pool.batch_size):
            yield embed(batch)
    finally:
        torch.set_num_threads(before)


def _batches(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows in tables of at most `rows`, cut as Ray Data does: of tables that hold so many together, the last one of what is left."""
    held: list[pa.Table] = []
    for table in chain(tables, [None]):
        held += [] if table is None else [table]
        if sum(each.num_rows for each in held) >= (rows if table is not None else 1):
            joined = pa.concat_tables(held)
            yield from (joined.slice(start, rows) for start in range(0, joined.num_rows, rows))
            held = []
