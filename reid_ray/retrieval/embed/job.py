"""The embed job: images or captions -> embedding actors -> an EMBEDDINGS table, each part written where its vectors were made.

Vectors never pass through this process, so neither their number nor the number of nodes matters here; output.path must be a folder that
all nodes see. Rows that could not be embedded are in the table too, with their reason.
"""

from __future__ import annotations

from typing import Any

from reid_ray.data.execution import ray_data_execution
from reid_ray.data.sources import image_listing, read_images
from reid_ray.errors import DataError
from reid_ray.model.plain_text import TruncationCounts
from reid_ray.retrieval.embed.config import EmbedJob
from reid_ray.retrieval.embed_stream import TOKENS, TRUNCATED, add_truncation_counts, caption_rows, embed_images, embed_texts, read_captions
from reid_ray.retrieval.encoder_identity import encoder_identity, fetch_encoder, pinned_encoder, require_encoder, require_texts
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.storage import JobOutput, parquet_files, read_manifest
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
    listing = None if config.images is None else image_listing(config.images)
    contents = {} if listing is None else listing.contents()
    output = JobOutput("embed", config.output.path, config, if_exists=config.output.if_exists, inputs=inputs, contents=contents)
    if (earlier := output.kept()) is not None:
        return earlier
    require_encoder(config.encoder)
    if config.images is None:
        require_texts(config.encoder)
    with ray_session(config.ray), output, ray_data_execution(no_progress_timeout_s=600):
        require_resources([pool_need("embed", config.embed)])
        fetch_encoder(config.encoder, config.embed)
        if config.images is not None:
            images = read_images(config.images, listing=listing)
            rows = embed_images(
                images, config.encoder, config.embed, max_pixels=config.images.max_pixels, thumbnail_height=config.thumbnail_height
            )
        else:
            captions = read_captions(str(config.captions), kinds=config.caption_kinds, split=config.split)
            rows = embed_texts(caption_rows(captions), config.encoder, config.embed)
        folder = (output.folder / EMBEDDINGS_FOLDER).resolve()
        rows.write_parquet(str(folder), min_rows_per_file=config.rows_per_file, compression="zstd")
        cut = _count(output, str(folder))
        if not output.counts.written:
            raise DataError(f"{origin}: not one row can be embedded ({output.counts}); check images or captions")
        dim, fingerprint = encoder_identity(config.encoder)
        output.facts.update({"kind": "text" if config.images is None else "image", "dim": dim, "encoder_fingerprint": fingerprint})
        if config.images is None:
            output.facts["texts_cut"] = cut.facts()
    say(f"embed: {output.counts} -> {config.output.path}{cut.sentence()}")
    return read_manifest(config.output.path)


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
                output.counts.failed[(reason or "failed").partition(":")[0]] += 1
    return cut
