"""JSON caption-list reader (CUHK-PEDES family): one JSON list of {id, <path key>, captions, split} beside a folder imgs/.

Knows what can be wrong with such a list's records; not the names and keys of any one data set, nor how JSON is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reid_ray.data.containers.annotations import RepeatedKeys, stream_list
from reid_ray.data.containers.values import SPLITS, is_safe_name, shown, slashes, split_name, whole
from reid_ray.data.image_records import ImageRecord, Records, Skipped, caption_of
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

IMAGES = "imgs"


@dataclass(frozen=True)
class JsonLayout:
    """What tells one of these data sets from another."""

    dataset: str
    path_key: str  # the key of the image's path below imgs/
    camera: Callable[[str], int | None]  # reads the camera from that path


def find_annotations(store: Store, given: str | None, names: tuple[str, ...], what: str) -> str:
    """The annotation file: the one given, else the first of the published `names` that exists.

    Raises:
        DataError: none of them is there.
    """
    for name in (given,) if given else names:
        if store.is_file(name):
            return name
    sought = given or " or ".join(names)
    raise DataError(f"{store}: holds no {sought}, the annotation file of {what}; check source.path or set source.annotations")


def read_json_captions(store: Store, file: str, layout: JsonLayout) -> Records:
    """One record per entry of the list.

    Raises:
        DataError: the file is no JSON list, or its entries lack the keys of this data set (judged by the first one).
    """
    # some lists say imgs/a.jpg, some a.jpg: the same file, unless there is a folder imgs/imgs
    prefix = "" if store.is_folder(f"{IMAGES}/{IMAGES}") else f"{IMAGES}/"
    for index, entry in enumerate(stream_list(store, file)):
        if index == 0:
            _refuse_other_shapes(entry, layout, f"{store}/{file}")
        yield _record(store, entry, index, layout, prefix)


def _refuse_other_shapes(entry: Any, layout: JsonLayout, origin: str) -> None:
    dataset, path_key = layout.dataset, layout.path_key
    if not isinstance(entry, dict):
        raise DataError(f"{origin}: should list records, but its first item is a {type(entry).__name__}")
    if "split" not in entry:
        raise DataError(
            f"{origin}: its records have no key split, so nobody can tell training people from test people; "
            f"use the file of {dataset} that has it (CUHK-PEDES: reid_raw.json, not caption_all.json)"
        )
    missing = [key for key in ("id", path_key, "captions") if key not in entry]
    if missing:
        hint = ""
        if path_key in missing and "file_path" in entry:
            hint = "; a key file_path belongs to CUHK-PEDES or ICFG-PEDES (source.format)"
        elif path_key in missing and "img_path" in entry:
            hint = "; a key img_path belongs to RSTPReid (source.format: rstpreid)"
        raise DataError(f"{origin}: its records lack {', '.join(missing)}; {dataset} has id, {path_key}, captions, split{hint}")


def _record(store: Store, entry: Any, index: int, layout: JsonLayout, prefix: str) -> ImageRecord | Skipped:
    dataset, path_key = layout.dataset, layout.path_key
    place = f"record {index}"
    if not isinstance(entry, dict):
        return Skipped(place, dataset, "bad_annotation", f"{place} is a {type(entry).__name__}, not an object")
    texts = entry.get("captions")
    captions = tuple(caption_of(text) for text in texts) if isinstance(texts, list) else (caption_of(texts),)
    path = entry.get(path_key)
    if not isinstance(path, str) or not path:
        return Skipped(place, dataset, "bad_annotation", f"{place}: {path_key} is {shown(path)}, not a path", captions=captions)
    name = slashes(path).removeprefix(prefix)
    if not is_safe_name(name):
        detail = f"{place}: {path_key} is {shown(path)}, but should be a path below {IMAGES}/"
        return Skipped(name, dataset, "unsafe_path", detail, captions=captions)
    person_id = None
    try:
        if isinstance(entry, RepeatedKeys):
            raise ValueError(f"it says {', '.join(entry.repeated)} more than once")
        person_id = _known(whole(entry.get("id"), "id"), "id")
        split = _split(entry.get("split"))
    except ValueError as error:
        return Skipped(name, dataset, "bad_annotation", f"{place}: {error}", person_id=person_id, captions=captions)
    return ImageRecord(
        name, dataset, store, f"{IMAGES}/{name}", split=split, person_id=person_id, camera_id=layout.camera(name), captions=captions
    )


def _known(number: int | None, name: str) -> int:
    if number is None:
        raise ValueError(f"{name} is null, not a whole number")
    return number


def _split(value: Any) -> str:
    split = split_name(value)
    if split not in SPLITS:
        raise ValueError(f"split is {shown(value)}, not one of {', '.join(SPLITS)}")
    return split
