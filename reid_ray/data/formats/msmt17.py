"""MSMT17 (Wei et al. 2018), V1 (train/, test/) and V2 (mask_train_v2/, mask_test_v2/), with list_{train,val,query,gallery}.txt.

A line is "path pid"; the camera is the third field of a name such as 0000_002_01_0303morning_0009_0.jpg. Two traps. The lists count
test persons from 0 again, so test persons are numbered on after the training ones here, or two people would share a number. And
list_val.txt holds further images of the TRAINING persons: most published results train on it (source.val_as says which is meant).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reid_ray.data.containers.annotations import text_lines
from reid_ray.data.containers.values import camera_in_name, is_safe_name, shown, slashes
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import ImageRecord, Records, Skipped
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

DATASET = "MSMT17"
LISTS = {"train": "list_train.txt", "val": "list_val.txt", "query": "list_query.txt", "gallery": "list_gallery.txt"}
VERSIONS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
_PID = re.compile(r"[0-9]{1,18}")
_NAME = re.compile(r"^\d+_\d+_(?P<camera>\d{1,9})_\d{4}(?:morning|noon|afternoon)_\d+_\d+(?:_ex)?\.\w+$")


def camera_of_name(path: str) -> int | None:
    """The camera in an MSMT17 file name, or None if it is not named so."""
    return camera_in_name(path, _NAME)


def read_msmt17(store: Store, source: SourceConfig) -> Records:
    """One record per line of the four lists; image_id is folder/path.

    Raises:
        DataError: a list or the folders are missing.
    """
    for folder in ("MSMT17_V1", "MSMT17_V2", "MSMT17"):
        if store.is_folder(folder) and not store.is_file(LISTS["train"]):
            store = store.child(folder)
    missing = [name for name in LISTS.values() if not store.is_file(name)]
    if missing:
        raise DataError(f"{store}: lacks {', '.join(missing)}, the lists of {DATASET} (source.path)")
    dataset = source.name or DATASET
    train_folder, test_folder = _folders(store)
    first_test_person = 1 + max((pid for split in ("train", "val") for _, _, pid in _lines(store, split) if pid is not None), default=-1)
    for split, file in LISTS.items():
        testing = split in ("query", "gallery")
        folder = test_folder if testing else train_folder
        for number, path, pid in _lines(store, split):
            if pid is None or not is_safe_name(path):
                yield Skipped(path, dataset, "bad_annotation", f"{file} line {number} is {shown(path)}, not 'path pid'", split)
                continue
            person_id = pid + first_test_person if testing else pid
            yield _record(store, f"{folder}/{path}", source.val_as if split == "val" else split, person_id, dataset)


def _folders(store: Store) -> tuple[str, str]:
    for folders in VERSIONS.values():
        if all(store.is_folder(folder) for folder in folders):
            return folders
    wanted = " or ".join(f"{train}/ and {test}/ ({version})" for version, (train, test) in VERSIONS.items())
    raise DataError(f"{store}: has neither {wanted}")


def _lines(store: Store, split: str) -> Iterator[tuple[int, str, int | None]]:
    """(line number, path, pid) of a list; pid is None where the line is not "path pid"."""
    for number, line in text_lines(store, LISTS[split]):
        parts = line.rsplit(maxsplit=1)
        pid = parts[1] if len(parts) == 2 else ""
        yield (number, slashes(parts[0]), int(pid)) if _PID.fullmatch(pid) else (number, line, None)


def _record(store: Store, path: str, split: str, person_id: int, dataset: str) -> ImageRecord:
    """The line says who it is; a name of another kind only leaves the camera unknown."""
    camera = camera_of_name(path)
    mended = ("camera_unknown",) if camera is None else ()
    return ImageRecord(path, dataset, store, path, split=split, person_id=person_id, camera_id=camera, mended=mended)
