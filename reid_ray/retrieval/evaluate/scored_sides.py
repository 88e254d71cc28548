"""The two sides of an evaluation as features: captions and images embedded now by Ray Data actors, or read from tables embedded before.

Knows which rows a protocol takes for queries and gallery; not how they are ranked or reported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import ImagesConfig
from reid_ray.data.execution import ray_data_execution
from reid_ray.data.sources import image_listing, iter_images, read_images
from reid_ray.errors import DataError
from reid_ray.progress import progress_bar
from reid_ray.retrieval.embed.features import Features, collect_features, read_features
from reid_ray.retrieval.embed_in_process import embedded_images, embedded_texts
from reid_ray.retrieval.embed_stream import (
    caption_blocks,
    caption_rows,
    embed_images,
    embed_texts,
    read_captions,
)
from reid_ray.retrieval.encoder_identity import encoder_identity, fetch_encoder
from reid_ray.retrieval.evaluate.config import EvaluateJob
from reid_ray.retrieval.evaluate.own_tracks import APART, apart_numbers, known_tracks, tracks_of
from reid_ray.retrieval.metrics import GroundTruth
from reid_ray.runtime import pool_need, require_resources


def features_of(config: EvaluateJob, *, here: bool) -> tuple[Features, Features]:
    """(queries, gallery), read or embedded. Queries of unknown person are left out and counted: they have no right answer.

    By image_to_image rows of unknown camera are left out, too. By leave_one_out the column APART of both says what is set apart from what.

    Args:
        config: the job's.
        here: whether what is embedded is embedded in this process; else by Ray's actors.

    Raises:
        DataError: nothing is left of a side, or the two were not made by one encoder.
        ResourceError: the cluster cannot hold the embedding actors.
    """
    if config.embeds and not here:
        require_resources([pool_need("embed", config.embed)])
        fetch_encoder(str(config.encoder), config.embed)
    if config.protocol == "leave_one_out":
        return _left_out(config, here=here)
    queries, gallery = _two_sides(config, here=here)
    if config.protocol == "image_to_image":
        return queries.of_known_cameras(), gallery.of_known_cameras()
    return queries, gallery


def leave_one_out_truth(queries: Features, gallery: Features) -> GroundTruth:
    """Of what features_of gave: the gallery's rows that query, against all others."""
    place_Q = pc.index_in(queries.items["item_id"], value_set=gallery.items["item_id"].combine_chunks()).to_numpy()
    return GroundTruth.leave_one_out(gallery.persons(), apart_G=gallery.items[APART].to_numpy(), query_Q=place_Q)


def track_facts(gallery: Features) -> dict[str, int]:
    """{"pictures": how many are of a known track, "tracks": of how many} of the gallery of leave_one_out."""
    apart_G = gallery.items[APART].to_numpy()
    tracked_G = apart_G < len(apart_G)
    return {"pictures": int(tracked_G.sum()), "tracks": len(np.unique(apart_G[tracked_G]))}


def _left_out(config: EvaluateJob, *, here: bool) -> tuple[Features, Features]:
    """The gallery, with APART, and those of it that query."""
    if config.gallery_embeddings is not None:
        gallery = read_features(config.gallery_embeddings, kind="image", split=config.split, include_synthetic=config.include_synthetic)
        _refuse_two_encoders(config, gallery, gallery)
    else:
        gallery = _embedded_images(config, config.split, "images", here=here)
    apart_G = apart_numbers(tracks_of(gallery.items["item_id"], known_tracks(config)))
    gallery = replace(gallery, items=gallery.items.append_column(APART, pa.array(apart_G)))
    queries = gallery.of_known_persons()
    if config.query_limit is not None and config.query_limit < len(queries):
        queries = queries.taken(_drawn(queries.ids, config.query_limit))
    return queries, gallery


def _drawn(ids: list[str], count: int) -> np.ndarray:
    """Rows of `count` ids, those of the smallest digests, in their order: the same whatever the order, and whatever else there is."""
    digest_N = np.array([int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") for name in ids], np.uint64)
    return np.sort(np.argpartition(digest_N, count - 1)[:count])


def rows_to_embed(config: EvaluateJob) -> int:
    """Images to embed; captions, where only these are."""
    if config.images is not None:
        return image_listing(_source(config, config.split)).count
    return read_captions(str(config.captions), kinds=config.caption_kinds, split=config.query_split or config.split).num_rows


def _source(config: EvaluateJob, split: str | None) -> ImagesConfig:
    return ImagesConfig(source="parquet", path=config.images, split=split, max_pixels=config.max_pixels)


def _two_sides(config: EvaluateJob, *, here: bool) -> tuple[Features, Features]:
    kind = "text" if config.protocol == "text_to_image" else "image"
    query_split = config.query_split or config.split
    if config.embeds and kind == "image" and query_split == config.split:  # the gallery's images are the queries: embedded once
        gallery = _embedded_images(config, config.split, "images", here=here)
        return gallery.of_known_persons(), gallery
    if config.query_embeddings is not None:
        queries = read_features(
            config.query_embeddings,
            kind=kind,
            split=query_split,
            drop_unknown_persons=True,
            include_synthetic=config.include_synthetic,
        )
    elif kind == "text":
        queries = _embedded_captions(config, query_split, here=here)
    else:
        queries = _embedded_images(config, query_split, "queries", drop_unknown_persons=True, here=here)
    if config.gallery_embeddings is not None:
        gallery = read_features(config.gallery_embeddings, kind="image", split=config.split, include_synthetic=config.include_synthetic)
    else:
        gallery = _embedded_images(config, config.split, "gallery", here=here)
    _refuse_two_encoders(config, queries, gallery)
    return queries, gallery


def _embedded_images(config: EvaluateJob, split: str | None, what: str, *, here: bool, drop_unknown_persons: bool = False) -> Features:
    source = _source(config, split)
    listing = image_listing(source)
    with contextlib.ExitStack() as stack:
        if here:
            found = iter_images(source, listing=listing)
            batches = embedded_images(found, str(config.encoder), config.embed, max_pixels=config.max_pixels)
        else:
            stack.enter_context(ray_data_execution(no_progress_timeout_s=600))
            rows = embed_images(read_images(source, listing=listing), str(config.encoder), config.embed, max_pixels=config.max_pixels)
            batches = rows.iter_batches(batch_size=None, batch_format="pyarrow")
        return collect_features(
            _watched(batches, what, listing.count),
            origin=str(config.images),
            capacity=listing.count,
            drop_unknown_persons=drop_unknown_persons,
            include_synthetic=config.include_synthetic,
        )


def _embedded_captions(config: EvaluateJob, split: str | None, *, here: bool) -> Features:
    captions = read_captions(str(config.captions), kinds=config.caption_kinds, split=split)
    with contextlib.ExitStack() as stack:
        if here:
            batches = embedded_texts(caption_blocks(captions), str(config.encoder), config.embed)
        else:
            stack.enter_context(ray_data_execution(no_progress_timeout_s=600))
            rows = embed_texts(caption_rows(captions), str(config.encoder), config.embed)
            batches = rows.iter_batches(batch_size=None, batch_format="pyarrow")
        return collect_features(
            _watched(batches, "queries", captions.num_rows),
            origin=str(config.captions),
            capacity=captions.num_rows,
            drop_unknown_persons=True,
            include_synthetic=config.include_synthetic,
        )


def _watched(batches: Any, label: str, total: int) -> Iterator[pa.Table]:
    with progress_bar(label, total, unit="row") as bar:
        for batch in batches:
            yield batch
            bar.update(batch.num_rows)


def _refuse_two_encoders(config: EvaluateJob, queries: Features, gallery: Features) -> None:
    if queries.vector_ND.shape[1] != gallery.vector_ND.shape[1]:
        raise DataError(
            f"{queries.origin} has {queries.vector_ND.shape[1]} dimensions, {gallery.origin} has {gallery.vector_ND.shape[1]}; "
            "embed both with one encoder"
        )
    found = queries.encoder_fingerprints | gallery.encoder_fingerprints
    if len(found) > 1:
        raise DataError(f"{queries.origin} and {gallery.origin} were made by encoders {sorted(found)}; embed both with one")
    if config.encoder is not None and found and not config.embeds and encoder_identity(config.encoder)[1] not in found:
        raise DataError(f"encoder: {config.encoder} did not make these embeddings ({sorted(found)}); drop it or name the one that did")
