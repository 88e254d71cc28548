"""The embed job: images or captions -> embedding actors -> an EMBEDDINGS table, each part written where its vectors were made.

Vectors never pass through this process, so neither their number nor the number of nodes matters here; output.path must be a folder that
all nodes see. Few rows are embedded and written in this process (ray.execution). Rows that could not be embedded are in the table, too,
with their reason.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from reid_ray.data.execution import ray_data_execution
from reid_ray.data.labels.doubted_captions import note_doubted
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.data.labels.own_of_files import own_of_captions
from reid_ray.data.sources import ImageListing, image_listing, iter_images, read_images
from reid_ray.errors import DataError
from reid_ray.model.plain_text import TruncationCounts
from reid_ray.own_columns import NOTHING_OWN
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.retrieval.embed_in_process import embedded_images, embedded_texts
from reid_ray.retrieval.embed_stream import (
    TOKENS,
    TRUNCATED,
    add_truncation_counts,
    caption_blocks,
    caption_rows,
    embed_images,
    embed_texts,
    read_captions,
)
from reid_ray.retrieval.encoder_identity import (
    encoder_identity,
    fetch_encoder,
    pinned_encoder,
    require_encoder,
    require_texts,
    shipped_content,
)
from reid_ray.runtime import pool_need, ray_session, require_resources, stays_in_process
from reid_ray.storage import JobOutput, TableWriter, parquet_files, read_manifest
from reid_ray.terminal.own_lines import say

EMBEDDINGS_FOLDER = "embeddings"


def run_embed(config: EmbedJob) -> dict[str, Any]:
    """Run the job; returns the manifest of config.output.path, which holds embeddings/: EMBEDDINGS, encoder_fingerprint
    and, if asked for, thumbnail.

    Raises:
        DataError: no encoder, no image or caption, or not a single one could be embedded.
        ResourceError: the cluster cannot hold the embedding actors.
    """
    config = config.model_copy(update={"encoder": pinned_encoder(config.encoder)})
    origin = config.captions if config.images is None else config.images.path
    inputs = {"encoder": config.encoder, "rows": origin}
    listing = None if config.images is None else image_listing(config.images, carry=True)
    contents = ({} if listing is None else listing.contents()) | shipped_content(config.encoder)
    output = JobOutput("embed", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs, contents=contents)
    if (earlier := output.kept()) is not None:
        return earlier
    require_encoder(config.encoder)
    if config.images is None:
        require_texts(config.encoder)
    own = NOTHING_OWN if listing is not None else own_of_captions(str(config.captions))
    captions = None if listing is not None else read_captions(str(config.captions), kinds=config.caption_kinds, split=config.split, own=own)
    rows = listing.count if listing is not None else 0 if captions is None else captions.num_rows
    here = stays_in_process(config.ray, rows, config.embed)
    with nullcontext() if here else ray_session(config.ray), output:
        note_doubted(output, [config.captions])
        folder = (output.folder / EMBEDDINGS_FOLDER).resolve()
        (_write_here if here else _write_by_actors)(config, listing, captions, folder)
        cut = _count(output, str(folder))
        if not output.counts.written:
            raise DataError(f"{origin}: not one row can be embedded ({output.counts}); check images or captions")
        further, told = (tuple(own.names), {}) if listing is None else (listing.further, listing.told)
        note_own(output, further, told)
        dim, fingerprint = encoder_identity(config.encoder)
        output.facts.update({"kind": "text" if config.images is None else "image", "dim": dim, "encoder_fingerprint": fingerprint})
        if config.images is None:
            output.facts["texts_cut"] = cut.facts()
    say(f"embed: {output.counts} -> {config.output.path}{cut.sentence()}{own_in_words(further, told)}")
    return read_manifest(config.output.path)


def _write_here(config: EmbedJob, listing: ImageListing | None, captions: pa.Table | None, folder: Path) -> None:
    """Embed and write in this process."""
    if config.images is not None:
        images = iter_images(config.images, listing=listing)
        limits: dict[str, Any] = {"max_pixels": config.images.max_pixels, "thumbnail_height": config.thumbnail_height}
        tables = embedded_images(images, config.encoder, config.embed, **limits)
    else:
        tables = embedded_texts(caption_blocks(captions), config.encoder, config.embed)
    first = next(tables)  # the listing holds an image, and the table a caption
    with TableWriter(folder, first.schema, rows_per_part=config.rows_per_file) as writer:
        for table in chain([first], tables):
            writer.append(table)


def _write_by_actors(config: EmbedJob, listing: ImageListing | None, captions: pa.Table | None, folder: Path) -> None:
    """Embed by Ray's actors; each part is written where its vectors were made."""
    require_resources([pool_need("embed", config.embed)])
    fetch_encoder(config.encoder, config.embed)
    with ray_data_execution(no_progress_timeout_s=600):
        if config.images is not None:
            images = read_images(config.images, listing=listing)
            limits: dict[str, Any] = {"max_pixels": config.images.max_pixels, "thumbnail_height": config.thumbnail_height}
            rows = embed_images(images, config.encoder, config.embed, **limits)
        else:
            rows = embed_texts(caption_rows(captions), config.encoder, config.embed)
        rows.write_parquet(str(folder), min_rows_per_file=config.rows_per_file, compression="zstd")


def _count(output: JobOutput, folder: str) -> TruncationCounts:
    cut = TruncationCounts()
    for file in parquet_files(folder):
        with file.open() as parquet:
            further = [name for name in (TOKENS.name, TRUNCATED.name) if name in parquet.schema_arrow.names]
            table = parquet.read(columns=["status", "reason", *further])
        if further:
            add_truncation_counts(cut, table)
        for status, reason in zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True):
            output.counts.read += 1
            if status == "ok":
                output.counts.written += 1
            else:
                output.counts.unused[(reason or "failed").partition(":")[0]] += 1
    return cut
