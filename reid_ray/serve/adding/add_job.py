"""One add job at work: batches of its upload are embedded beside the searches, and added; after a kill it goes on where it was.

A batch that was added and not yet counted is added again: items are replaced by themselves. Knows uploads, the encoder and the writer; not
which job is next, or HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.gallery.bulk.erased_since import ErasedSince, ErasuresBefore
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter
from reid_ray.gallery.items import ID
from reid_ray.model.encoder import Encoder
from reid_ray.retrieval.embed_stream import ImageEmbedder
from reid_ray.retrieval.index.taken_rows import item_columns, last_of_each, refuse_another_encoder, why_left_out
from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.item_rows import ColumnTypes, bare_items, picture_columns, picture_rows
from reid_ray.serve.adding.job_captions import PictureCaption, captions_by_id
from reid_ray.serve.adding.job_folder import JobFolder, JobStatus
from reid_ray.serve.operations.writer_turns import BusyError, WriterTurns

_EMBEDDED_ROWS = 1_024
_ASK_AGAIN_S = 1.0


class JobStoppedError(Exception):
    """A job ends before its time: it was cancelled, or the service is stopping (`is_cancelled` says which)."""

    def __init__(self, *, is_cancelled: bool) -> None:
        super().__init__("cancelled" if is_cancelled else "the service is stopping")
        self.is_cancelled = is_cancelled


@dataclass(frozen=True)
class AddTools:
    """What every job needs.

    about: the gallery's columns and encoder, no segment of it.
    stopping: whether the service is.
    """

    turns: WriterTurns
    encoder: Encoder
    config: AddingConfig
    about: GalleryView
    include_synthetic: bool
    stopping: Callable[[], bool]


@dataclass(frozen=True)
class _Batch:
    """Rows as the embed job writes them, and what each is called in refusals."""

    rows: pa.Table
    files: list[str]


def work(folder: JobFolder, status: JobStatus, tools: AddTools) -> None:
    """Do what is left of a job, writing its status after every batch.

    Raises:
        JobStoppedError: it was cancelled, or the service is stopping.
        ReidRayError, OSError: why it cannot go on.
    """
    erased = ErasedSince(str(tools.about.folder), ErasuresBefore(status.begun_at, tuple(status.waiting_erasures)))
    captions = _captions(folder, status, tools) if status.captioned else None
    batches = _pictures(folder, status, tools, captions) if status.kind == "pictures" else _table(folder, status, tools, captions)
    for batch in batches:
        _look(folder, tools)
        _add(batch, folder, status, tools, erased)


def _look(folder: JobFolder, tools: AddTools) -> None:
    if folder.is_to_be_cancelled:
        raise JobStoppedError(is_cancelled=True)
    if tools.stopping():
        raise JobStoppedError(is_cancelled=False)


def _pictures(folder: JobFolder, status: JobStatus, tools: AddTools, captions: Mapping[str, PictureCaption] | None) -> Iterator[_Batch]:
    embed = _embedder(tools)
    rows = folder.rows()
    tools.about.refresh()
    types = ColumnTypes.of([(row.file, row.columns) for row in rows], tools.about.schema)
    is_last_N = last_of_each([row.item_id for row in rows])
    names_files = tools.about.schema.get_field_index("image_id") >= 0
    with folder.upload.open("rb") as file:
        while status.done < len(rows):
            start = status.done
            some = rows[start : start + tools.config.batch_size]
            pictures = []
            for row in some:
                file.seek(row.start)
                pictures.append(file.read(row.size))
            table = pa.table({"image_id": [row.item_id for row in some], "image": pa.array(pictures, pa.binary())})
            columns = types.table([row.columns for row in some])
            if names_files and "image_id" not in columns:
                columns["image_id"] = pa.array([row.file for row in some])
            embedded = bare_items(_without_repeats(embed(picture_rows(table)), is_last_N[start : start + len(some)]), columns)
            yield _Batch(_with_captions(embedded, captions), [row.file for row in some])


def _table(folder: JobFolder, status: JobStatus, tools: AddTools, captions: Mapping[str, PictureCaption] | None) -> Iterator[_Batch]:
    embed = _embedder(tools)
    with pq.ParquetFile(folder.upload) as parquet:
        is_embedded = "embedding" in parquet.schema_arrow.names
        before = status.done
        for batch in parquet.iter_batches(_EMBEDDED_ROWS if is_embedded else tools.config.batch_size):
            if before >= batch.num_rows:
                before -= batch.num_rows
                continue
            table = pa.Table.from_batches([batch]).slice(before)
            before = 0
            if is_embedded:
                yield _Batch(table, ["" if each is None else str(each) for each in table[ID].to_pylist()])
                continue
            pictures = picture_rows(table)
            columns = picture_columns(table)
            embedded = embed(pictures)
            embedded = bare_items(embedded, {name: columns[name] for name in columns.column_names})
            yield _Batch(_with_captions(embedded, captions), [str(each) for each in embedded[ID].to_pylist()])


def _embedder(tools: AddTools) -> ImageEmbedder:
    config = tools.config
    return ImageEmbedder(tools.encoder, max_pixels=config.max_pixels, thumbnail_height=config.thumbnail_height)


def _captions(folder: JobFolder, status: JobStatus, tools: AddTools) -> dict[str, PictureCaption]:
    """The caption of each picture that has one. Of a killed job the captions that are there are not made again."""

    def pictures() -> Iterator[pa.Table]:
        if status.kind == "pictures":
            with folder.upload.open("rb") as file:
                for row in folder.rows():
                    file.seek(row.start)
                    yield pa.table({"image_id": [row.item_id], "image": pa.array([file.read(row.size)], pa.binary())})
        else:
            with pq.ParquetFile(folder.upload) as parquet:
                for batch in parquet.iter_batches(tools.config.batch_size):
                    yield pa.Table.from_batches([batch])

    def look() -> None:
        _look(folder, tools)

    return captions_by_id((picture_rows(table) for table in pictures()), folder.path, tools.config, look)


def _with_captions(rows: pa.Table, captions: Mapping[str, PictureCaption] | None) -> pa.Table:
    if captions is None:
        return rows
    said = [captions.get(each) for each in rows[ID].to_pylist()]
    columns = {"caption": [each and each.text for each in said], "caption_remark": [each and each.remark for each in said]}
    without = rows.drop_columns([name for name in columns if name in rows.column_names])
    for name, texts in columns.items():
        without = without.append_column(name, pa.array(texts, pa.string()))
    return without


def _without_repeats(embedded: pa.Table, is_last_B: np.ndarray) -> pa.Table:
    if is_last_B.all():
        return embedded
    reasons = [
        reason if is_last else "replaced: a later picture of the upload has the same item_id"
        for reason, is_last in zip(embedded["reason"].to_pylist(), is_last_B, strict=True)
    ]
    states = [state if is_last else "failed" for state, is_last in zip(embedded["status"].to_pylist(), is_last_B, strict=True)]
    for name, values in (("reason", reasons), ("status", states)):
        embedded = embedded.set_column(embedded.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return embedded


def _add(batch: _Batch, folder: JobFolder, status: JobStatus, tools: AddTools, erased: ErasedSince) -> None:
    """Add those rows of a batch that are items, count the others, and say so."""
    rows, made = batch.rows, tools.about.manifest
    why = why_left_out(rows, dim=made.dim, include_synthetic=tools.include_synthetic)
    good_B = np.equal(why, None)
    good = rows.filter(pa.array(good_B))
    refuse_another_encoder(good, made.encoder, "table")
    last_G = last_of_each(good[ID].to_pylist())
    why[np.flatnonzero(good_B)[~last_G]] = "replaced: a later row of the upload has the same item_id"
    good = item_columns(good.filter(pa.array(last_G)))

    def add(writer: GalleryWriter) -> tuple[int, set[str], int]:
        gone = erased.among(writer.view, good[ID].to_pylist())  # looked at while nobody else can erase
        left = good.filter(pa.array([each not in gone for each in good[ID].to_pylist()], pa.bool_())) if gone else good
        return writer.add(left, encoder=made.encoder, origin="the upload"), gone, writer.view.generation

    added, gone, generation = _when_it_is_our_turn(add, folder, tools)
    for at, each in enumerate(rows[ID].to_pylist()):
        if why[at] is None and each in gone:
            why[at] = "erased: an erasure of this item was asked for after it was uploaded"
    left_out = np.flatnonzero(~np.equal(why, None))
    ids = rows[ID].to_pylist()
    status.refuse([(batch.files[at], ids[at] or "", str(why[at])) for at in left_out])
    if status.captioned:
        status.uncaptioned += sum(text is None and reason is None for text, reason in zip(rows["caption"].to_pylist(), why, strict=True))
    status.added += added
    status.done += rows.num_rows
    status.generation = generation
    folder.write_status(status)


def _when_it_is_our_turn(add: Callable[[GalleryWriter], Any], folder: JobFolder, tools: AddTools) -> Any:
    """Wait for as long as another process writes; a job has no deadline."""
    while True:
        try:
            future: Future[Any] = tools.turns.ask(add)
            return future.result()
        except BusyError:
            _look(folder, tools)
            time.sleep(_ASK_AGAIN_S)
