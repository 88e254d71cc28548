"""JSON caption-list reader (CUHK-PEDES family): one JSON list of {id, <path key>, captions, split} beside a folder of images.

Knows what can be wrong with such a list's records; not the names and keys of any one data set, nor how JSON is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reid_ray.data.containers.annotations import RepeatedKeys, stream_list
from reid_ray.data.containers.values import SPLITS, is_safe_name, shown, slashes, split_name, whole
from reid_ray.data.image_records import Caption, ImageRecord, Records, Skipped, caption_of
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store, open_store

IMAGES = "imgs"
Entry = Mapping[str, Any]


def captions_under(entry: Entry, key: str, **columns: Any) -> tuple[Caption, ...]:
    """The caption rows of a key whose value is a list of texts; whatever else it is becomes one failed row."""
    texts = entry.get(key)
    return tuple(caption_of(text, **columns) for text in texts) if isinstance(texts, list) else (caption_of(texts, **columns),)


def human_captions(entry: Entry) -> tuple[Caption, ...]:
    """The key captions: what people wrote."""
    return captions_under(entry, "captions")


@dataclass(frozen=True)
class JsonLayout:
    """What tells one of these data sets from another."""

    dataset: str
    path_key: str  # the key of the image's path below the folder of images
    camera: Callable[[str], int | None] | None = None  # reads the camera from that path; None: paths say none
    images: str = IMAGES  # the folder of images; empty where paths count from the data set itself
    captions: Callable[[Entry], tuple[Caption, ...]] = human_captions
    attributes: Callable[[Entry], str | None] = lambda entry: None
    unsplit: bool = False  # whether the key split may be lacking
    only_split: str | None = None  # of an entry that lacks it


def find_annotations(store: Store, given: str | None, names: tuple[str, ...], what: str, *, or_any: bool = False) -> str:
    """The annotation file: the one given, else the first of the published `names` that exists.

    Args:
        store: the data set.
        given: a file of another name.
        names: published ones.
        what: the data set's name.
        or_any: whether the only *.json beside the images will do, for data sets whose file is met under many names.

    Raises:
        DataError: none of them is there.
    """
    for name in (given,) if given else names:
        if store.is_file(name):
            return name
    found = [name for name in store.list_folder()[1] if name.endswith(".json")] if or_any and not given else []
    if len(found) == 1:
        return found[0]
    sought = given or " or ".join(names)
    several = f" and {len(found)} other *.json, of which one might be it" if found else ""
    raise DataError(f"{store}: holds no {sought}{several}, the annotation file of {what}; check source.path or set source.annotations")


def image_store(store: Store, given: str | None, default: str) -> Store:
    """Where a data set's images lie: at an address of their own, or below the data set.

    Args:
        store: the data set.
        given: source.images, an address or a path relative to the data set; None takes the default.
        default: folder of the data set; empty is the data set itself.

    Raises:
        DataError: there is no such folder.
    """
    if given and ("://" in given or given.startswith("/")):
        return open_store(given)
    images = store.child(folder) if (folder := given or default) else store
    if not images.is_folder():
        raise DataError(f"{images}: is not a folder; set source.images to the folder or LMDB that holds the images")
    return images


def read_json_captions(store: Store, file: str, layout: JsonLayout) -> Records:
    """One record per entry of the list.

    Raises:
        DataError: the file is no JSON list, or its entries lack the keys of this data set (judged by the first one).
    """
    prefix = image_prefix(store, layout.images)
    for index, entry in enumerate(stream_list(store, file)):
        if index == 0:
            _refuse_other_shapes(entry, layout, f"{store}/{file}")
        yield _record(store, entry, index, layout, prefix)


def image_prefix(store: Store, folder: str) -> str:
    """What may stand before a path that counts from the folder of images: some lists say imgs/a.jpg, some a.jpg.

    The same file, unless there is a folder imgs/imgs.
    """
    return "" if not folder or store.is_folder(f"{folder}/{folder}") else f"{folder}/"


def _refuse_other_shapes(entry: Any, layout: JsonLayout, origin: str) -> None:
    dataset, path_key = layout.dataset, layout.path_key
    if not isinstance(entry, dict):
        raise DataError(f"{origin}: should list records, but its first item is a {type(entry).__name__}")
    if "split" not in entry and not layout.unsplit:
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
        keys = f"id, {path_key}, captions{'' if layout.unsplit else ', split'}"
        raise DataError(f"{origin}: its records lack {', '.join(missing)}; {dataset} has {keys}{hint}")


def _record(store: Store, entry: Any, index: int, layout: JsonLayout, prefix: str) -> ImageRecord | Skipped:
    dataset, path_key = layout.dataset, layout.path_key
    place = f"record {index}"
    if not isinstance(entry, dict):
        return Skipped(place, dataset, "bad_annotation", f"{place} is a {type(entry).__name__}, not an object")
    captions = layout.captions(entry)
    path = entry.get(path_key)
    if not isinstance(path, str) or not path:
        return Skipped(place, dataset, "bad_annotation", f"{place}: {path_key} is {shown(path)}, not a path", captions=captions)
    name = slashes(path).removeprefix(prefix)
    if not is_safe_name(name):
        detail = f"{place}: {path_key} is {shown(path)}, but should be a path below {layout.images or 'the data set'}/"
        return Skipped(name, dataset, "unsafe_path", detail, captions=captions)
    person_id = None
    lacks_split = layout.unsplit and "split" not in entry
    try:
        if isinstance(entry, RepeatedKeys):
            raise ValueError(f"it says {', '.join(entry.repeated)} more than once")
        person_id = _known(whole(entry.get("id"), "id"), "id")
        split = layout.only_split if lacks_split else _split(entry.get("split"))
    except ValueError as error:
        return Skipped(name, dataset, "bad_annotation", f"{place}: {error}", person_id=person_id, captions=captions)
    camera_id = layout.camera(name) if layout.camera is not None else None
    mended = (
        *(["no_split_key"] if lacks_split and layout.only_split else []),
        *(["camera_unknown"] if layout.camera is not None and camera_id is None else []),
    )
    return ImageRecord(
        name,
        dataset,
        store,
        f"{layout.images}/{name}" if layout.images else name,
        split=split,
        person_id=person_id,
        camera_id=camera_id,
        attributes=layout.attributes(entry),
        captions=captions,
        mended=mended,
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
