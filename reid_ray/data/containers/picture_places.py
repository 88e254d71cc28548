"""Where the pictures of an annotation file lie, when they are not in the folder that its data set publishes them in.

People unpack archives in their own way: imgs/ is called images/, or its content lies beside the JSON. The first few records tell, so that
a tree costs a handful of looks; a folder that is nowhere is refused with the place where a picture was expected. Knows records and
stores; not formats. A picture that is missing among others is not its business: the loader counts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain

from reid_ray.data.image_records import ImageRecord, Records, Skipped
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

_LOOKED_AT = 8  # records; at an object store a look is a request
_FOLDERS = ("imgs", "images")
MENDED = "pictures_elsewhere"


def with_pictures(records: Records, dataset: str) -> Records:
    """The records, with each picture's place mended if the data set's folder of pictures has another name, or is left out.

    Args:
        records: of a reader.
        dataset: its name, for the message.

    Raises:
        DataError: neither the folder in which the first records' pictures should be nor another that holds them is there.
    """
    first: list[ImageRecord | Skipped] = []
    looked: list[tuple[Store, str]] = []
    for record in records:
        first.append(record)
        if isinstance(record, ImageRecord) and record.store is not None and record.name is not None:
            if record.store.is_file(record.name):
                looked = []
                break
            looked.append((record.store, record.name))
        if len(looked) == _LOOKED_AT or len(first) == 64 * _LOOKED_AT:
            break
    place = _place_of(looked, dataset)
    everything = chain(first, records)
    yield from everything if place is None else (_moved(record, place) for record in everything)


def _place_of(looked: list[tuple[Store, str]], dataset: str) -> Callable[[str], str] | None:
    """What makes a picture's name of the published one; None if it is that."""
    if not looked or any(_folder_is_there(store, name) for store, name in looked):
        return None
    for place in _other_places():
        if any(place(name) != name and store.is_file(place(name)) for store, name in looked):
            return place
    store, name = looked[0]
    folder = name.partition("/")[0]
    raise DataError(
        f"{store}: has no folder {folder}/, in which {dataset} keeps its pictures, and they are not beside the annotations either: the "
        f"first is expected at {name}; put them there, or give the folder above {folder}/ as source.path"
    )


def _folder_is_there(store: Store, name: str) -> bool:
    folder, inside, _ = name.partition("/")
    return not inside or store.is_folder(folder)


def _other_places() -> list[Callable[[str], str]]:
    """Beside the annotations; in a folder of pictures of another name; below one, where the published paths have none."""

    def beside(name: str) -> str:
        folder, inside, rest = name.partition("/")
        return rest if inside and folder in _FOLDERS else name

    def renamed(folder: str) -> Callable[[str], str]:
        return lambda name: f"{folder}/{beside(name)}"

    return [beside, *(renamed(folder) for folder in _FOLDERS)]


def _moved(record: ImageRecord | Skipped, place: Callable[[str], str]) -> ImageRecord | Skipped:
    if isinstance(record, Skipped) or record.name is None:
        return record
    return replace(record, name=place(record.name), mended=(*record.mended, MENDED))
