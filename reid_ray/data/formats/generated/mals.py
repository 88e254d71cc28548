"""MALS (Yang et al., ACM MM 2023): drawn people, gene_attrs/*_attrs.json and folders of images beside it, or elsewhere (source.images).

Each file is a list of {image, caption, image_id, label: 27 numbers}. A label is 1, 0 or -1, which means not known: null here. There are
neither persons nor splits.
"""

from __future__ import annotations

import json
from typing import Any

from reid_ray.data.containers.annotations import RepeatedKeys, stream_list
from reid_ray.data.containers.json_captions import image_store
from reid_ray.data.containers.values import is_safe_name, shown, slashes
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import ImageRecord, Records, Skipped, caption_of
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

DATASET = "MALS"
FOLDER, ENDING = "gene_attrs", "_attrs.json"
LABELS = 27
CAPTIONER = "mals"


def read_mals(store: Store, source: SourceConfig) -> Records:
    """One record per entry of every file; image_id is the path; attributes are {"label": 27 of 1, 0, null}.

    Raises:
        DataError: there are no such files, or one is no JSON list.
    """
    dataset = source.name or DATASET
    files = [name for name in store.list_folder(FOLDER)[1] if name.endswith(ENDING)] if store.is_folder(FOLDER) else []
    if not files:
        raise DataError(f"{store}: holds no {FOLDER}/*{ENDING}, the annotations of {DATASET} (source.path)")
    images = image_store(store, source.images, "")
    for file in files:
        for index, entry in enumerate(stream_list(store, f"{FOLDER}/{file}")):
            yield _record(images, entry, f"{file} record {index}", dataset)


def _record(images: Store, entry: Any, place: str, dataset: str) -> ImageRecord | Skipped:
    if not isinstance(entry, dict) or isinstance(entry, RepeatedKeys):
        return Skipped(place, dataset, "bad_annotation", f"{place} is {shown(entry)}, not an object that says each key once")
    captions = (caption_of(entry.get("caption"), kind="static", captioner=CAPTIONER),)
    path = entry.get("image")
    if not isinstance(path, str) or not path:
        return Skipped(place, dataset, "bad_annotation", f"{place}: image is {shown(path)}, not a path", captions=captions)
    name = slashes(path)
    if not is_safe_name(name):
        return Skipped(
            name, dataset, "unsafe_path", f"{place}: image is {shown(path)}, but should be a path below the images", captions=captions
        )
    attributes, mended = _labels(entry.get("label"))
    return ImageRecord(name, dataset, images, name, attributes=attributes, captions=captions, mended=mended)


def _labels(label: Any) -> tuple[str | None, tuple[str, ...]]:
    """(attributes, what was set right) of the key label."""
    if label is None:
        return None, ()
    if not isinstance(label, list) or len(label) != LABELS or not all(type(value) is int and value in (-1, 0, 1) for value in label):
        return None, ("label_unusable",)
    known = [None if value == -1 else value for value in label]
    return json.dumps({"label": known}), ("label_not_known",) if -1 in label else ()
