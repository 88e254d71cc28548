"""Any folder of image files, at any depth: what is known of each from a pattern in its path or a table beside; or each its own identity.

A path that the pattern does not match is skipped and counted: a pattern that misses files is usually wrong. Files without an image
suffix are counted too, but for the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import ImageRecord, LabelledRecords, Records, Skipped
from reid_ray.data.images import is_image_name
from reid_ray.data.labels.labelled_record import labelled
from reid_ray.data.labels.path_and_table import Labeller, labeller_of
from reid_ray.own_columns import NOTHING_OWN
from reid_ray.storage.file_systems import Store, open_file_store
from reid_ray.storage.object_store.pointer import place_name

_AT_ONCE = 1_024


def read_folder(store: Store, source: SourceConfig) -> LabelledRecords:
    """One record per file in sorted order, folder by folder; image_id is the path relative to the folder.

    Raises:
        DataError: the table beside the folder cannot be used.
    """
    labeller = labeller_of(source, store.root, (path for path in store.walk() if is_image_name(path)))
    own, told = (NOTHING_OWN, {}) if labeller is None else (labeller.own, labeller.facts())
    return LabelledRecords(_records(store, source, labeller), own, told)


def _records(store: Store, source: SourceConfig, labeller: Labeller | None) -> Records:
    dataset = source.name or place_name(store.root)
    number = 0
    table = None if source.table is None else _located(source.table)
    for path, known in _described(store.walk(), labeller):
        if not is_image_name(path):
            if store.locate(path) != table:
                yield Skipped(path, dataset, "no_image_file", "its suffix is none of an image", path=store.locate(path))
            continue
        record = labelled(store, path, dataset, known)
        if source.each_its_own and isinstance(record, ImageRecord):
            record = replace(record, person_id=number)
        number += isinstance(record, ImageRecord)
        yield record


def _described(paths: Iterator[str], labeller: Labeller | None) -> Iterator[tuple[str, dict[str, object] | None]]:
    """Every file with what is known of it, if it is an image."""
    while some := list(islice(paths, 1 if labeller is None else _AT_ONCE)):
        images = [path for path in some if is_image_name(path)]
        known = iter([None] * len(images) if labeller is None else labeller.labels(images).to_pylist())
        yield from ((path, next(known) if is_image_name(path) else None) for path in some)


def _located(table: str) -> str:
    store, name = open_file_store(table)
    return store.locate(name)
