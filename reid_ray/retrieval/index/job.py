"""The index job: images, or tables of the embed job, become a gallery, whose segments are sealed on all nodes.

Knows the order of work and the counts; rows, vectors and pictures never pass through this process, unless they are so few that all of it
is done here (ray.execution). Sealing is piece_sealing.py's, what a
gallery is reid_ray.gallery's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reid_ray.config.called import called
from reid_ray.data.execution import ray_data_execution
from reid_ray.data.labels.own_in_words import note_own, own_in_words
from reid_ray.data.sources import ImageListing, image_listing, iter_images, read_images
from reid_ray.errors import DataError, ReidRayError
from reid_ray.gallery.bulk.adoption import Adoption
from reid_ray.gallery.bulk.sealed_piece import PIECES, SealedPiece, drop_pieces
from reid_ray.gallery.gallery_writer import GalleryWriter, create_gallery
from reid_ray.gallery.generations import newest_generation
from reid_ray.records import EMBEDDINGS
from reid_ray.retrieval.embed_in_process import embedded_images
from reid_ray.retrieval.embed_stream import embed_images
from reid_ray.retrieval.encoder_identity import (
    encoder_identity,
    fetch_encoder,
    located_encoder,
    pinned_encoder,
    require_encoder,
    shipped_content,
)
from reid_ray.retrieval.index.config import IndexJob
from reid_ray.retrieval.index.piece_sealing import READ, REPLACED, TAKEN, PieceTerms, left_out_file
from reid_ray.retrieval.index.table_pieces import cut_tables, files_of, least_rows, made_by, sealed_by_tasks
from reid_ray.runtime import pool_need, ray_session, require_resources, stays_in_process
from reid_ray.storage import JobOutput, TableWriter, read_manifest
from reid_ray.terminal.counted import counted
from reid_ray.terminal.own_lines import say

FAILED_FOLDER = "failed"
_WRITE_ROWS = 32_768  # of embedded images that a task holds: with thumbnails of 256 pixels about 400 MB


def run_index(config: IndexJob, *, before: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Run the job; returns the manifest of config.output.path.

    The folder is a gallery, and holds failed/ (EMBEDDINGS rows that are no items, with the reason) and manifest.json, too.

    Args:
        config: of the job.
        before: called before anything is made, not where an earlier result is kept; what it raises ends the job.

    Raises:
        DataError: no image, no encoder, or not a single image can be searched.
        ResourceError: the cluster cannot hold the embedding actors.
    """
    if config.encoder is not None:
        config = config.model_copy(update={"encoder": pinned_encoder(config.encoder)})
    listing = None if config.images is None else image_listing(config.images, carry=True)
    rows = config.images.path if config.images is not None else config.embeddings
    output = JobOutput(
        "index",
        config.output.path,
        config,
        if_exists=config.output.if_exists,
        inputs={"rows": rows, **({} if config.encoder is None else {"encoder": config.encoder})},
        contents=({} if listing is None else listing.contents()) | shipped_content(config.encoder),
    )
    if (earlier := output.kept()) is not None:
        return earlier
    before()
    if config.encoder is not None:
        require_encoder(config.encoder)
    here = listing is not None and stays_in_process(config.ray, listing.count, config.embed)
    with nullcontext() if here else ray_session(config.ray), output:
        dim, fingerprint = _identity(config)
        pieces = _kept_pieces(output.path) if listing is None else output.folder / PIECES
        terms = PieceTerms(str(pieces), dim, fingerprint, config.gallery, config.include_synthetic)
        after = newest_generation(output.path)  # a service may have it open
        create_gallery(output.folder, dim=dim, encoder=fingerprint, config=config.gallery, after=after)
        started = time.perf_counter()
        with _dropped_if_refused(pieces):
            sealed = _from_tables(config, terms) if listing is None else _from_images(config, listing, terms, here=here)
            output.timings["seal_seconds"] = time.perf_counter() - started
            _count(output, pieces, sealed)
            with GalleryWriter(output.folder) as writer:
                taken = writer.adopt(pieces, sealed, encoder=fingerprint)
                _count_taken(output, taken, str(rows))
                segments, generation = len(writer.view.manifest.segments), writer.view.generation
        path = None if config.encoder is None else located_encoder(config.encoder)
        further, told = ((), {}) if listing is None else (listing.further, listing.told)
        note_own(output, further, told)
        facts = {"dim": dim, "items": taken.living, "segments": segments, "generation": generation}
        output.facts.update({**facts, "encoder_fingerprint": fingerprint, "encoder_path": path})
    gallery = f"a gallery of {counted(segments, 'segment')}, dimension {dim}"
    say(f"index: {output.counts} -> {config.output.path} ({gallery}){own_in_words(further, told)}")
    return read_manifest(config.output.path)


def _identity(config: IndexJob) -> tuple[int, str]:
    """(dimension, fingerprint) of the gallery's vectors.

    Raises:
        DataError: the tables are of another encoder than the one that is given.
    """
    given = None if config.encoder is None else encoder_identity(config.encoder)
    if config.embeddings is None:
        assert given is not None
        return given
    found = made_by(files_of(config.embeddings))
    if given is not None and given != found:
        raise DataError(
            f"{called('encoder')}: {config.encoder} is {given[1]}, but the vectors of {config.embeddings[0]} are of {found[1]}; "
            "give that one"
        )
    return found


def _from_tables(config: IndexJob, terms: PieceTerms) -> list[SealedPiece]:
    assert config.embeddings is not None
    return sealed_by_tasks(cut_tables(files_of(config.embeddings), config.gallery), terms)


def _from_images(config: IndexJob, listing: ImageListing, terms: PieceTerms, *, here: bool) -> list[SealedPiece]:
    from reid_ray.retrieval.index.blocks_in_memory import seal_here

    assert config.images is not None
    assert config.encoder is not None
    options: dict[str, Any] = {
        "max_pixels": config.images.max_pixels,
        "thumbnail_height": config.thumbnail_height,
        "include_synthetic": config.include_synthetic,
    }
    exact = config.gallery.nearest.kind == "flat"
    piece_rows = min(_WRITE_ROWS, config.gallery.segment_rows) if exact else least_rows(config.gallery)
    if here:
        tables = embedded_images(iter_images(config.images, listing=listing), config.encoder, config.embed, **options)
        return seal_here(tables, terms, piece_rows=piece_rows, total=listing.count, origin=listing.origin)
    from reid_ray.retrieval.index.embedded_pieces import seal_embedded

    require_resources([pool_need("embed", config.embed)])
    fetch_encoder(config.encoder, config.embed)
    with ray_data_execution(no_progress_timeout_s=600):
        rows = embed_images(read_images(config.images, listing=listing), config.encoder, config.embed, **options)
        return seal_embedded(rows, terms, piece_rows=piece_rows, total=listing.count, origin=listing.origin)


def _kept_pieces(path: Path) -> Path:
    """Where pieces of tables lie until the gallery is there: beside it, so that a run that was killed goes on with them."""
    return path.parent / f".{path.name}.{PIECES}"


@contextmanager
def _dropped_if_refused(pieces: Path) -> Iterator[None]:
    """Whoever is told what is wrong finds nothing left; after a kill or a lost node the pieces are there for the next run."""
    try:
        yield
    except ReidRayError:
        drop_pieces(pieces)
        raise


def _count(output: JobOutput, pieces: Path, sealed: Sequence[SealedPiece]) -> None:
    """Counts of the pieces; what they leave out is written down."""
    with TableWriter(output.folder / FAILED_FOLDER, EMBEDDINGS) as failed:
        for piece in sealed:
            reasons = {name: count for name, count in piece.counts.items() if name not in (READ, TAKEN)}
            output.counts.read += piece.counts[READ]
            output.counts.unused.update(reasons)
            if set(reasons) - {REPLACED}:
                failed.append(pq.read_table(left_out_file(pieces, piece.name)))


def _count_taken(output: JobOutput, taken: Adoption, origin: str) -> None:
    output.counts.written = taken.living
    if taken.replaced:
        output.counts.unused["replaced"] += taken.replaced
    if not taken.living:
        raise DataError(
            f"{origin}: none of its images can be searched ({output.counts}); check {called('images')} or {called('embeddings')}"
        )
