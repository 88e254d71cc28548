"""The shape that CUHK-PEDES, ICFG-PEDES and RSTPReid share: one JSON list of {id, <path key>, captions, split} beside a folder imgs/.

Knows how to stream such a list and what can be wrong with it; not the names and keys of any one data set. The file is parsed
record by record, so a list of millions costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reid_ray.data.formats.records import ImageRecord, Records, Skipped, caption_of
from reid_ray.data.store import Store
from reid_ray.errors import DataError

IMAGES = "imgs"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
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


def read_json_captions(store: Store, file: str, layout: Layout) -> Records:
    """One record per entry of the list.

    Raises:
        DataError: the file is no JSON list, or its entries lack the keys of this data set (judged by the first one).
    """
    for index, entry in enumerate(stream_list(store, file)):
        if index == 0:
            _refuse_other_shapes(entry, layout, f"{store}/{file}")
        yield _record(store, entry, index, layout)


def stream_list(store: Store, file: str) -> Iterator[Any]:
    """The items of a JSON list, one at a time.

    Raises:
        DataError: the file does not hold a JSON list, or breaks off.
    """
    import ijson

    with store.open(file) as stream:
        start = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start.startswith(b"["):
            raise DataError(f"{store}/{file}: should be a JSON list of records, but begins with {start[:20]!r}")
    with store.open(file) as stream:
        if stream.read(3) != b"\xef\xbb\xbf":
            stream.seek(0)
        try:
            yield from ijson.items(stream, "item", use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{store}/{file}: is not whole JSON ({reason}); fetch the file again") from None


def is_safe_name(name: str) -> bool:
    """Whether a path from a file stays inside its folder."""
    return bool(name) and not name.startswith("/") and "\\" not in name and ".." not in name.split("/")


def _refuse_other_shapes(entry: Any, layout: Layout, origin: str) -> None:
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


def _record(store: Store, entry: Any, index: int, layout: Layout) -> ImageRecord | Skipped:
    dataset, path_key = layout.dataset, layout.path_key
    place = f"record {index}"
    if not isinstance(entry, dict):
        return Skipped(place, dataset, "bad_annotation", f"{place} is a {type(entry).__name__}, not an object")
    texts = entry.get("captions")
    captions = tuple(caption_of(text) for text in texts) if isinstance(texts, list) else (caption_of(texts),)
    path, person_id, split = entry.get(path_key), entry.get("id"), entry.get("split")
    if not isinstance(path, str) or not path:
        return Skipped(place, dataset, "bad_annotation", f"{place} has {path_key} {path!r}", captions=captions)
    if not is_safe_name(path):
        return Skipped(path, dataset, "unsafe_path", f"{place}: {path_key} leaves the folder {IMAGES}/", captions=captions)
    if not isinstance(person_id, int) or isinstance(person_id, bool):
        return Skipped(path, dataset, "bad_annotation", f"{place} has id {person_id!r}, not a whole number", captions=captions)
    if split not in SPLITS:
        detail = f"{place} has split {split!r}, not one of {', '.join(SPLITS)}"
        return Skipped(path, dataset, "bad_annotation", detail, person_id=person_id, captions=captions)
    return ImageRecord(
        path, dataset, store, f"{IMAGES}/{path}", split=split, person_id=person_id, camera_id=layout.camera(path), captions=captions
    )
