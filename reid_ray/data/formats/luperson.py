"""LUPerson (Fu et al. 2021), 4 million unlabelled crops: the LMDB of the release, or folders country/city/video/*.jpg.

An LMDB key is "{country:02d}_{city:02d}_{video:04d}_{index:08d}", its value the JPEG file. Nobody is labelled, so person and camera
stay null. Of a file that is cut or damaged the good entries are read and the loss is counted. The release's keys.pkl is a pickle, which
could run code, and says nothing that the LMDB does not: it is never opened.
"""

from __future__ import annotations

import re

from reid_ray.data.containers.lmdb_pages import LmdbFile
from reid_ray.data.formats.config import SourceConfig
from reid_ray.data.image_records import ImageRecord, Records, Skipped
from reid_ray.data.images import is_image_name
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import Store

DATASET = "LUPerson"
KEY = re.compile(r"^\d{2}_\d{2}_\d{4}_\d{8}$")


def read_luperson(store: Store, source: SourceConfig) -> Records:
    """One record per crop; image_id is the LMDB key, or the path in the folders."""
    dataset = source.name or DATASET
    folder = lmdb_folder(store)
    if folder is not None:
        yield from _of_lmdb(folder, dataset, source.max_file_mb << 20)
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


def open_lmdb(folder: Store, max_bytes: int) -> LmdbFile:
    """The file data.mdb of an LMDB, as a context manager; values come cut to `max_bytes` and one.

    Raises:
        DataError: it does not lie on a local disk, or is no LMDB.
    """
    path = folder.local_path("data.mdb")
    if path is None:
        raise DataError(f"{folder}: an LMDB is read in small pieces all over the file, so it must lie on a local disk; copy it there first")
    return LmdbFile(path, max_bytes)


def _broken(database: LmdbFile, folder: Store, dataset: str, lost: int, problem: str) -> Skipped:
    """The row that counts what of an LMDB cannot even be named any more."""
    cut = f"; the file has {database.size:,} bytes, but should have {database.whole_size:,}" if database.size < database.whole_size else ""
    detail = f"{lost:,} of {database.entries:,} entries are lost ({problem}{cut}); fetch the file again"
    return Skipped("data.mdb", dataset, "broken_lmdb", detail, path=folder.locate("data.mdb"))


def _of_lmdb(folder: Store, dataset: str, max_bytes: int) -> Records:
    with open_lmdb(folder, max_bytes) as database:
        named, problem = 0, None
        for entry in database.items():
            if entry.key is None:
                problem = problem or entry.problem
                continue
            named += 1
            key = entry.key.decode("utf-8", errors="backslashreplace")
            if entry.problem is not None:
                reason = "unexpected_key" if "sub-database" in entry.problem else "damaged_entry"
                yield Skipped(key, dataset, reason, entry.problem, path=folder.locate("data.mdb"))
            elif KEY.match(key):
                yield ImageRecord(key, dataset, data=entry.value)
            else:
                yield Skipped(key, dataset, "unexpected_key", "is not country_city_video_index")
        if problem is not None or named < database.entries:
            yield _broken(database, folder, dataset, max(database.entries - named, 0), problem or "its header counts more")
