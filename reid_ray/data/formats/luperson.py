"""LUPerson (Fu et al. 2021), 4 million unlabelled crops: the LMDB of the release, or folders country/city/video/*.jpg.

An LMDB key is "{country:02d}_{city:02d}_{video:04d}_{index:08d}", its value the JPEG file. Nobody is labelled, so person and camera
stay null. The release's keys.pkl is a pickle, which could run code, and says nothing that the LMDB does not: it is never opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reid_ray.config.source import SourceConfig
from reid_ray.data.formats.records import ImageRecord, Records, Skipped
from reid_ray.data.store import Store, is_image_name
from reid_ray.errors import DataError

DATASET = "LUPerson"
KEY = re.compile(r"^\d{2}_\d{2}_\d{4}_\d{8}$")


def lmdb_key(country: int, city: int, video: int, index: int) -> str:
    """The key of one crop in the release's LMDB."""
    return f"{country:02d}_{city:02d}_{video:04d}_{index:08d}"


def read_luperson(store: Store, source: SourceConfig) -> Records:
    """One record per crop; image_id is the LMDB key, or the path in the folders."""
    dataset = source.name or DATASET
    folder = lmdb_folder(store)
    if folder is not None:
        yield from _of_lmdb(folder, dataset)
        return
    found = False
    for path in store.walk():
        if is_image_name(path):
            found = True
            yield ImageRecord(path, dataset, store, path)
        elif path.rpartition("/")[2] not in ("keys.pkl", "lock.mdb"):
            yield Skipped(path, dataset, "no_image_file", "its suffix is none of an image", path=store.locate(path))
    if not found:
        raise DataError(f"{store}: holds neither an LMDB (lmdb/data.mdb) nor image files (source.path)")


def lmdb_folder(store: Store) -> Store | None:
    """The folder of data.mdb: this one or its child lmdb/, as the release has it; None if there is none."""
    return next((folder for folder in (store, store.child("lmdb")) if folder.is_file("data.mdb")), None)


@contextmanager
def open_lmdb(folder: Store) -> Iterator[Any]:
    """A read transaction on an LMDB, with buffers=False.

    Raises:
        DataError: it does not lie on a local disk (LMDB maps its file into memory) or is damaged.
    """
    import lmdb

    path = folder.local_path()
    if path is None:
        raise DataError(f"{folder}: an LMDB is mapped into memory, so it must lie on a local disk; copy it there first")
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False, create=False)
    except lmdb.Error as error:
        raise DataError(f"{path}: is no readable LMDB ({error})") from None
    try:
        with environment.begin() as transaction:
            yield transaction
    finally:
        environment.close()


def _of_lmdb(folder: Store, dataset: str) -> Records:
    with open_lmdb(folder) as transaction:
        for raw_key, value in transaction.cursor():
            key = raw_key.decode("utf-8", errors="replace")
            if KEY.match(key):
                yield ImageRecord(key, dataset, data=value)
            else:
                yield Skipped(key, dataset, "unexpected_key", "is not country_city_video_index")
