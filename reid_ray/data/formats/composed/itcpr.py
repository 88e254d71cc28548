"""ITCPR (Liu et al., NeurIPS 2025): composed person retrieval, query.json and gallery.json over images of Celeb-reID, PRCC and LAST.

A query is {file_path, datasets, person_id, instance_id, caption}: its image and the text ask for the same person in the clothes of an
instance. Gallery entries lack caption; the right answers are those of the query's instance_id, and -1 is a distractor. Persons and
instances are both kept, the instance in attributes; how the text is kept, the folder's docstring says. Queries (some thousands) are held
in memory, for an image may ask twice.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from reid_ray.data.containers.annotations import RepeatedKeys, stream_list
from reid_ray.data.containers.values import is_safe_name, shown, slashes, whole
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped, composed_caption
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

DATASET = "ITCPR"
FILES = {"query": "query.json", "gallery": "gallery.json"}
DISTRACTOR = -1


def read_itcpr(store: Store, source: SourceConfig) -> Records:
    """One record per image of each file; image_id is query/ or gallery/ and the path; an image that asks twice has both texts.

    Raises:
        DataError: one of the two files is missing, or is no JSON list.
    """
    dataset = source.name or DATASET
    if missing := [file for file in FILES.values() if not store.is_file(file)]:
        raise DataError(f"{store}: lacks {' and '.join(missing)} of {DATASET} (source.path)")
    places = _Places(store)
    asked: dict[str, ImageRecord] = {}
    for record in _records(store, "query", dataset, places):
        if isinstance(record, Skipped):
            yield record
        elif (first := asked.get(record.image_id)) is None:
            asked[record.image_id] = record
        else:
            asked[record.image_id] = replace(first, captions=(*first.captions, *record.captions))
    yield from asked.values()
    yield from _records(store, "gallery", dataset, places)


def instance_in(target: str, *, otherwise: Any) -> Any:
    """The instance that a query asks for, by the words of its row; `otherwise` where they name none."""
    kind, _, said = target.partition(" ")
    try:
        return ast.literal_eval(said) if kind == "instance" else otherwise
    except (ValueError, SyntaxError):
        return otherwise


class _Places:
    """Where an entry's image lies: its path counts from the data set itself or from the folder that the key datasets names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folders: dict[str, bool] = {}

    def path_of(self, path: str, datasets: Any) -> str:
        first = path.partition("/")[0]
        if is_safe_name(first) and first not in self._folders:
            self._folders[first] = self._store.is_folder(first)
        return path if self._folders.get(first) or not isinstance(datasets, str) else f"{datasets}/{path}"


def _records(store: Store, split: str, dataset: str, places: _Places) -> Iterator[ImageRecord | Skipped]:
    for index, entry in enumerate(stream_list(store, FILES[split])):
        yield _record(store, entry, f"{FILES[split]} record {index}", split, dataset, places)


def _record(store: Store, entry: Any, place: str, split: str, dataset: str, places: _Places) -> ImageRecord | Skipped:  # noqa: PLR0917
    if not isinstance(entry, dict) or isinstance(entry, RepeatedKeys):
        return Skipped(place, dataset, "bad_annotation", f"{place} is {shown(entry)}, not an object that says each key once", split)
    instance = entry.get("instance_id")
    captions: tuple[Caption, ...] = ()
    if split == "query":
        captions = (composed_caption(entry.get("caption"), f"instance {shown(instance)}"),)
    path = entry.get("file_path")
    if not isinstance(path, str) or not path:
        return Skipped(place, dataset, "bad_annotation", f"{place}: file_path is {shown(path)}, not a path", split, captions=captions)
    name = places.path_of(slashes(path), entry.get("datasets"))
    if not is_safe_name(name):
        return Skipped(f"{split}/{name}", dataset, "unsafe_path", f"{place}: file_path is {shown(path)}", split, captions=captions)
    try:
        person, instance = (whole(entry.get(key), key) for key in ("person_id", "instance_id"))
    except ValueError as error:
        return Skipped(f"{split}/{name}", dataset, "bad_annotation", f"{place}: {error}", split, captions=captions)
    return ImageRecord(
        f"{split}/{name}",
        dataset,
        store,
        name,
        split=split,
        person_id=None if person == DISTRACTOR else person,
        attributes=json.dumps({"instance_id": None if instance == DISTRACTOR else instance, "datasets": entry.get("datasets")}),
        captions=captions,
    )
