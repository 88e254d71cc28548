"""SynCPR (Liu et al., NeurIPS 2025): drawn triplets for composed retrieval, SynCPR.json and folders of images.

An entry has path and caption of a reference and of a target image, edit_caption and cpr_id. The two captions are their image's own.
edit_caption asks, with the reference image, for the target: how it is kept, the folder's docstring says. Who is who is
not said beyond cpr_id, which is kept in attributes: persons are null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from reid_ray.data.containers.annotations import RepeatedKeys, stream_list
from reid_ray.data.containers.json_captions import find_annotations
from reid_ray.data.containers.values import is_safe_name, shown, slashes
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped, caption_of, composed_caption
from reid_ray.storage.file_systems import Store

DATASET = "SynCPR"
ANNOTATIONS = "SynCPR.json"
CAPTIONER = "syncpr"
ROLES = ("reference", "target")


def read_syncpr(store: Store, source: SourceConfig) -> Records:
    """Two records per triplet, reference then target; image_id is the path, so an image of a later triplet counts as repeated_id."""
    dataset = source.name or DATASET
    file = find_annotations(store, source.annotations, (ANNOTATIONS,), DATASET)
    for index, entry in enumerate(stream_list(store, file)):
        yield from _records(store, entry, f"record {index}", dataset)


def _records(store: Store, entry: Any, place: str, dataset: str) -> Iterator[ImageRecord | Skipped]:
    if not isinstance(entry, dict) or isinstance(entry, RepeatedKeys):
        yield Skipped(place, dataset, "bad_annotation", f"{place} is {shown(entry)}, not an object that says each key once")
        return
    for role in ROLES:
        captions: tuple[Caption, ...] = (
            caption_of(entry.get(f"{role}_caption"), kind="static", captioner=CAPTIONER, instruction_id=f"{role}_caption"),
        )
        if role == "reference":
            target = f"image {shown(entry.get('target_image_path'))}"
            captions += (
                composed_caption(entry.get("edit_caption"), target, kind="static", captioner=CAPTIONER, instruction_id="edit_caption"),
            )
        yield _record(store, entry, f"{place}, {role}", dataset, role, captions)


def _record(store: Store, entry: Any, place: str, dataset: str, role: str, captions: tuple[Caption, ...]) -> ImageRecord | Skipped:  # noqa: PLR0917
    path = entry.get(f"{role}_image_path")
    if not isinstance(path, str) or not path:
        return Skipped(place, dataset, "bad_annotation", f"{place}: its path is {shown(path)}", captions=captions)
    name = slashes(path)
    if not is_safe_name(name):
        return Skipped(name, dataset, "unsafe_path", f"{place}: its path is {shown(path)}", captions=captions)
    attributes = json.dumps({"cpr_id": entry.get("cpr_id"), "role": role})
    return ImageRecord(name, dataset, store, name, attributes=attributes, captions=captions)
