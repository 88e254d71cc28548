"""The index job: images -> embedding actors -> FAISS index, items and thumbnails in one folder.

Knows the order of work and the counts; the embedding is in embed_stream.py, the index in faiss_index.py. Vectors are collected in this
process (4 bytes x dim each, so 2 GB for a million of 512); pictures are not: thumbnails go to disk as they come.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.data.execution import ray_data_execution
from reid_ray.data.sources import image_listing, read_images
from reid_ray.errors import DataError
from reid_ray.progress import progress_bar
from reid_ray.records import EMBEDDINGS
from reid_ray.retrieval.embed_stream import embed_images
from reid_ray.retrieval.encoder_identity import require_encoder_folder
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.faiss_index import ITEMS, GalleryIndex
from reid_ray.retrieval.index.thumbnails import ThumbnailWriter
from reid_ray.runtime import pool_need, ray_session, require_resources
from reid_ray.storage import JobOutput, TableWriter, read_manifest
from reid_ray.terminal.own_lines import say

FAILED_FOLDER = "failed"


def run_index(config: IndexJob) -> dict[str, Any]:
    """Run the job; returns the manifest of config.output.path.

    The folder holds index.faiss, gallery.parquet, index.json, thumbnails.parquet, failed/ (EMBEDDINGS rows of images that could not
    be embedded, with the reason) and manifest.json.

    Raises:
        DataError: no image, no encoder, or not a single image could be embedded.
        ResourceError: the cluster cannot hold the embedding actors.
    """
    listing = image_listing(config.images)
    output = JobOutput(
        "index",
        config.output.path,
        config,
        if_exists=config.output.if_exists,
        inputs={"images": config.images.path, "encoder": config.encoder},
        contents=listing.contents(),
    )
    if (earlier := output.kept()) is not None:
        return earlier
    require_encoder_folder(config.encoder)
    with ray_session(config.ray), output, ray_data_execution(no_progress_timeout_s=600):
        require_resources([pool_need("embed", config.embed)])
        rows = embed_images(
            read_images(config.images, listing=listing),
            config.encoder,
            config.embed,
            max_pixels=config.images.max_pixels,
            thumbnail_height=config.thumbnail_height,
            include_synthetic=config.include_synthetic,
        )
        vector_ND, items, fingerprint = _collect(rows.iter_batches(batch_size=None, batch_format="pyarrow"), output, listing.count)
        if not len(vector_ND):
            raise DataError(f"{listing.origin}: none of its images can be searched ({output.counts}); check images.path")
        started = time.perf_counter()
        index = GalleryIndex.build(
            vector_ND, items, config.index, encoder_fingerprint=fingerprint, encoder_path=str(Path(config.encoder).resolve())
        )
        index.save(output.folder)
        output.timings["build_seconds"] = time.perf_counter() - started
        output.facts.update(index.facts())
    say(f"index: {output.counts} -> {config.output.path} ({index.config.kind}, dimension {index.dim})")
    return read_manifest(config.output.path)


def _collect(batches: Iterable[pa.Table], output: JobOutput, total: int) -> tuple[np.ndarray, pa.Table, str]:
    """(vectors [N, D], their items, the encoder's fingerprint); thumbnails and failed rows are on disk afterwards.

    Raises:
        DataError: vectors of two encoders, whose cosines mean nothing.
    """
    vectors: list[np.ndarray] = []
    items: list[pa.Table] = []
    fingerprint = ""
    counts, started = output.counts, time.perf_counter()
    with (
        ThumbnailWriter(output.folder) as thumbnails,
        TableWriter(output.folder / FAILED_FOLDER, EMBEDDINGS) as failed,
        progress_bar("index", total) as bar,
    ):
        for batch in batches:
            good = batch.filter(pc.equal(batch["status"], "ok"))
            bad = batch.filter(pc.equal(batch["status"], "failed"))
            if good.num_rows:
                flat = good["embedding"].combine_chunks().flatten().to_numpy()
                vectors.append(flat.reshape(good.num_rows, -1))
                items.append(good.select(ITEMS.names))
                thumbnails.append(good["image_id"], good["thumbnail"])
                fingerprint = _one_encoder(good["encoder_fingerprint"], fingerprint)
            if bad.num_rows:
                failed.append(bad)
            counts.read += batch.num_rows
            counts.written += good.num_rows
            counts.failed.update(reason.partition(":")[0] for reason in bad["reason"].to_pylist())
            bar.set_postfix_str(str(counts), refresh=False)
            bar.update(batch.num_rows)
    output.timings["embed_seconds"] = time.perf_counter() - started
    vector_ND = np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
    return vector_ND, pa.concat_tables(items) if items else ITEMS.empty_table(), fingerprint


def _one_encoder(fingerprints: pa.ChunkedArray, before: str) -> str:
    """The fingerprint of a batch's encoder, which must be that of the batches before ("": none yet)."""
    found = {*fingerprints.unique().to_pylist(), *([before] if before else [])}
    if len(found) > 1:
        raise DataError(f"the encoder changed while images were embedded ({' and '.join(sorted(found))}); run the index job again")
    return str(found.pop())
