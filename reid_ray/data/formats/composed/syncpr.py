"""SynCPR (Liu et al., NeurIPS 2025): drawn triplets for composed retrieval, SynCPR.json and folders of images.

An entry has path and caption of a reference and of a target image, edit_caption and cpr_id. The two captions are their image's own.
edit_caption asks, with the reference image, for the target: how it is kept, the folder's docstring says. Who is who is
not said beyond cpr_id, which is kept in attributes: persons are null.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from reid_ray.data.containers.annotations import RepeatedKeys, stream_list
from reid_ray.data.containers.json_captions import find_annotations
from reid_ray.data.containers.values import is_safe_name, shown, slashes
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped, caption_of, composed_caption, is_composed
from reid_ray.storage.file_systems import Store

DATASET = "SynCPR"
ANNOTATIONS = "SynCPR.json"
CAPTIONER = "syncpr"
ROLES = ("reference", "target")
_TARGET = re.compile(r"image (.+) of cpr_id (.+)", re.DOTALL)


def read_syncpr(store: Store, source: SourceConfig) -> Records:
    """One record per image, reference before target; image_id is the path. An image of several triplets has all their texts.

    The list is read twice, for of each image it must be known how often it comes: 8 bytes each, and it is held until the last of them.
    """
    dataset = source.name or DATASET
    file = find_annotations(store, source.annotations, (ANNOTATIONS,), DATASET)

    def records() -> Records:
        for index, entry in enumerate(stream_list(store, file)):
            yield from _records(store, entry, f"record {index}", dataset)

    to_come = _repeated(records())
    held: dict[str, ImageRecord] = {}
    for record in records():
        key = _key(record.image_id)
        if isinstance(record, Skipped) or key not in to_come:
            yield record
            continue
        first = held.get(record.image_id)
        held[record.image_id] = record if first is None else _both(first, record)
        to_come[key] -= 1
        if not to_come[key]:
            yield held.pop(record.image_id)
    yield from held.values()


def target_in(target: str) -> tuple[Any, Any]:
    """(image_id, cpr_id) that a row of edit_caption asks for, by its words; (None, None) where they do not say it."""
    match = _TARGET.fullmatch(target)
    try:
        return (None, None) if match is None else (json.loads(match[1]), json.loads(match[2]))
    except ValueError:
        return None, None


def _repeated(records: Records) -> dict[int, int]:
    """How often each image comes, of those that come more than once."""
    keys = array("Q", (_key(record.image_id) for record in records if isinstance(record, ImageRecord)))
    key_K, count_K = np.unique(np.frombuffer(keys, np.uint64), return_counts=True)
    return dict(zip(key_K[count_K > 1].tolist(), count_K[count_K > 1].tolist(), strict=True))


def _key(image_id: str) -> int:
    return int.from_bytes(blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _both(first: ImageRecord, again: ImageRecord) -> ImageRecord:
    """An image with the texts of two triplets, its own caption once."""
    own = {caption["text"] for caption in first.captions if not is_composed(caption)}
    new = [caption for caption in again.captions if is_composed(caption) or caption["text"] not in own]
    return replace(first, captions=(*first.captions, *new))


def _records(store: Store, entry: Any, place: str, dataset: str) -> Iterator[ImageRecord | Skipped]:
    if not isinstance(entry, dict) or isinstance(entry, RepeatedKeys):
        yield Skipped(place, dataset, "bad_annotation", f"{place} is {shown(entry)}, not an object that says each key once")
        return
    for role in ROLES:
        captions: tuple[Caption, ...] = (
            caption_of(entry.get(f"{role}_caption"), kind="static", captioner=CAPTIONER, instruction_id=f"{role}_caption"),
        )
        if role == "reference":
            path = entry.get("target_image_path")
            target = f"image {json.dumps(slashes(path) if isinstance(path, str) else None)} of cpr_id {json.dumps(entry.get('cpr_id'))}"
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
