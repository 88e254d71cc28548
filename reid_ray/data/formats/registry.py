"""A source's format -> the reader that reads it, and what readers give. The table of readers is READERS in config.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from reid_ray.data.containers.image_names import restored
from reid_ray.data.containers.picture_places import with_pictures
from reid_ray.data.formats.config import READERS, Format, SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, LabelledRecords, Records, Skipped
from reid_ray.own_columns import NOTHING_OWN
from reid_ray.storage.file_systems import Store, open_store
from reid_ray.storage.object_store.pointer import reading_place

__all__ = ["Caption", "ImageRecord", "Records", "Skipped", "open_source", "read_source", "reader_of"]


def reader_of(format: Format) -> Callable[[Store, SourceConfig], Records]:
    """The function that reads a format, from its module in this folder."""
    module, _, function = READERS[format].rpartition(".")
    reader: Callable[[Store, SourceConfig], Records] = getattr(import_module(f"{__package__}.{module}"), function)
    return reader


def read_source(source: SourceConfig) -> Records:
    """The records of a data set, streaming, in an order that does not change from run to run; of an export, under the ids it came from.

    Of a job's output at a store, those of the result that its pointer names. Pictures are found beside the annotations, too, where the
    folder that they are published in is not there.

    Raises:
        DataError: the address or the layout cannot be used at all.
    """
    yield from open_source(source)


def open_source(source: SourceConfig) -> LabelledRecords:
    """As read_source, with the schema of the columns beside those of IMAGES, which is known before the first record is read."""
    store = open_store(reading_place(source.path))
    records = reader_of(source.format)(store, source)
    own, told = (records.own, records.told) if isinstance(records, LabelledRecords) else (NOTHING_OWN, {})
    return LabelledRecords(restored(with_pictures(records, source.format), store), own, told)
