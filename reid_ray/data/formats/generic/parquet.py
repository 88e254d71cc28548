"""Parquet: the project's own folder {images/, captions/, failures/}, or any table that has an image column.

Tables of other origin are renamed by source.columns (IMAGES column -> their name), and their further columns are carried. Captions are
matched to images on disk, so both tables may be of any size and order. Rows that an earlier ingest failed come again as skipped rows,
with their reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.data.containers.caption_store import CaptionStore
from reid_ray.data.containers.values import split_name, whole
from reid_ray.data.failures import FAILURES
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, LabelledRecords, Records, Skipped, caption_of
from reid_ray.data.labels.carried_columns import CarriedColumns
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IDENTITY_COLUMNS, IMAGES, conform
from reid_ray.storage.file_systems import Store, open_file_store, open_store
from reid_ray.storage.object_store.pointer import place_name, reading_place
from reid_ray.storage.table_files import TableFile
from reid_ray.versions import check_table

_IDS = ("person_id", "camera_id")
_LEARNT_AGAIN = ("image_sha256", "width", "height")  # from the bytes, whatever the table says
_BATCH_ROWS = 64  # rows hold whole images: a larger batch would not be bounded memory
# What a caption row keeps on its way; the rest is filled from its image when it is written again.
_CAPTION_COLUMNS = [name for name in CAPTIONS.names if name not in ("image_sha256", *IDENTITY_COLUMNS)]


def read_parquet(store: Store, source: SourceConfig) -> LabelledRecords:
    """One record per image row, with the rows of captions/ that belong to it.

    Raises:
        DataError: there is no Parquet file, or a column has the wrong type or cannot be carried.
    """
    images = store.child("images") if store.is_folder("images") else store
    carried = CarriedColumns(_files(images), source)
    return LabelledRecords(_records(store, images, source, carried), carried.own, {})


def _records(store: Store, images: Store, source: SourceConfig, carried: CarriedColumns) -> Records:
    dataset = source.name or place_name(store.root)
    with CaptionStore() as captions:
        if source.captions is not None:
            captions.add_all(_captions(_table_store(source.captions)))
        elif store.is_folder("captions"):
            captions.add_all(_captions(store.child("captions")))
        for row in _rows(images, IMAGES, source.columns, carried=carried):
            yield _record(row, captions.take(row["image_id"]), dataset if source.name else None, dataset)
        if store.is_folder("failures"):
            for row in _rows(store.child("failures"), FAILURES, {}):
                waiting = tuple(caption_of(text) for text in row["captions"] or ())
                who = (row["split"], row["person_id"], row["camera_id"], row["path"])
                yield Skipped(row["image_id"], row["dataset"] or dataset, row["reason"], row["detail"] or "", *who, waiting)
        for image_id, waiting in captions.orphans():
            yield Skipped(image_id, dataset, "missing", "has captions but no row in images/", captions=waiting)


def _table_store(location: str) -> Store:
    """A table's folder, given as itself or as the output, a folder or an address, of the job that wrote it."""
    store = open_store(reading_place(location))
    return store.child("captions") if store.is_folder("captions") else store


def _record(row: dict[str, Any], captions: tuple[Caption, ...], renamed: str | None, fallback: str) -> ImageRecord | Skipped:
    image_id, dataset, split, path = row["image_id"], renamed or row["dataset"] or fallback, split_name(row["split"]), row["path"]
    if row["wrong"] is not None:
        reason, _, detail = row["wrong"].partition(": ")
        return Skipped(image_id, dataset, reason, detail, split, path=path, captions=captions)
    try:
        person_id, camera_id = (whole(row[name], name) for name in _IDS)
    except ValueError as error:
        return Skipped(image_id, dataset, "bad_annotation", str(error), split, path=path, captions=captions)
    store, name = (None, None)
    if row["image"] is None and path:
        try:
            store, name = open_file_store(path)
        except DataError as error:
            return Skipped(image_id, dataset, "unreadable_file", str(error), split, person_id, camera_id, path, captions)
    return ImageRecord(
        image_id,
        dataset,
        store,
        name,
        data=row["image"],
        split=split,
        person_id=person_id,
        camera_id=camera_id,
        synthetic=row["synthetic"],
        attributes=row["attributes"],
        captions=captions,
        own=row["own"],
    )


def _captions(store: Store) -> Iterator[tuple[str, Caption]]:
    for row in _rows(store, CAPTIONS, {}, columns=_CAPTION_COLUMNS):
        if row["text"] is None and row["status"] != "failed":
            row |= {"status": "failed", "reason": "null_caption"}
        yield row.pop("image_id"), row


def _files(store: Store) -> list[TableFile]:
    files = [TableFile(store, path) for path in store.walk() if path.endswith(".parquet")]
    if not files:
        raise DataError(f"{store}: holds no *.parquet file (source.path)")
    return files


def _rows(
    store: Store, schema: pa.Schema, renames: dict[str, str], columns: list[str] | None = None, carried: CarriedColumns | None = None
) -> Iterator[dict[str, Any]]:
    wanted = pa.schema([schema.field(name) for name in columns]) if columns else schema
    for table in _files(store):
        with table.open() as file:
            for row in _file_rows(file, wanted, renames, f"{store}/{table.name}", carried):
                if row.get("path"):
                    row["path"] = store.locate_beside(table.name, row["path"])
                yield row


def _file_rows(
    file: pq.ParquetFile, schema: pa.Schema, renames: dict[str, str], origin: str, carried: CarriedColumns | None
) -> Iterator[dict[str, Any]]:
    check_table(file.schema_arrow.metadata, origin=origin)
    there = set(file.schema_arrow.names)
    sources = {name: renames.get(name, name) for name in schema.names}
    present = {name: source for name, source in sources.items() if source in there}
    if twice := [source for source in present.values() if file.schema_arrow.names.count(source) > 1]:
        raise DataError(f"{origin}: has the column {', '.join(twice)} more than once; keep one of each")
    further = [] if carried is None else carried.columns_of(file.schema_arrow)
    rows = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(dict.fromkeys([*present.values(), *further]))):
        table = pa.table({name: batch.column(source) for name, source in present.items()})
        if schema is IMAGES and "image_id" not in present:
            table = _with_ids(table, f"{origin.rpartition('/')[2]}#", rows)
            rows += batch.num_rows
        # ids are judged row by row, so that one that is no number costs its row alone
        ids = {name: table.column(name).to_pylist() for name in _IDS if name in present and schema is IMAGES}
        rest = table.select([name for name in table.column_names if name not in {*ids, *_LEARNT_AGAIN} or schema is not IMAGES])
        own = [{}] * batch.num_rows if carried is None else carried.of(batch, origin)
        for position, row in enumerate(conform(rest, schema, origin=origin).to_pylist()):
            yield row | {name: values[position] for name, values in ids.items()} | own[position]


def _with_ids(table: pa.Table, prefix: str, first: int) -> pa.Table:
    """A table whose images are structs {bytes, path} names them so: by path, or by file and row where that is null."""
    if "image" not in table.column_names or not pa.types.is_struct(table.schema.field("image").type):
        return table
    named = [(image or {}).get("path") or f"{prefix}{first + row}" for row, image in enumerate(table.column("image").to_pylist())]
    return table.append_column("image_id", pa.array(named, pa.string()))
