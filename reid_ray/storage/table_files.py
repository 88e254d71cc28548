"""The Parquet files of a table, wherever it lies: on this machine's disk or at an address, found, opened, refused in one sentence.

Knows file names and what pyarrow raises; not schemas (tables.py) or what a row means.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.errors import DataError
from reid_ray.storage.file_systems import State, Store, open_file_store, store_at
from reid_ray.storage.object_store.pointer import reading_place
from reid_ray.storage.regular_files import raise_if_system
from reid_ray.storage.store_errors import trouble_of

_BUFFER = 1 << 20  # bytes of a column that are read at a time


@dataclass(frozen=True)
class TableFile:
    """One Parquet file: `name` in `store`; the state is what the listing told of it, None on a local disk."""

    store: Store
    name: str
    listed: State | None = None

    def __str__(self) -> str:
        return self.store.locate(self.name)

    @contextmanager
    def open(self) -> Iterator[pq.ParquetFile]:
        """The file, opened; its columns are asked of a store in few large requests.

        Raises:
            DataError: it cannot be read, or what is done in the block cannot.
        """
        with reading_parquet(str(self)):
            local = self.store.local_path(self.name)
            source = self.store.open(self.name) if local is None else local
            with pq.ParquetFile(source, pre_buffer=local is None) as parquet:
                yield parquet

    def state(self) -> State | None:
        """Size and time of change, as listed or as they are now."""
        return self.listed or self.store.state(self.name)


def parquet_files(location: str | Path) -> list[TableFile]:
    """The files of a table at a local path or URI: the file itself, or every *.parquet below a folder, in sorted order.

    Raises:
        DataError: there is nothing at the location, it holds no Parquet file, or it cannot be listed.
    """
    location = reading_place(str(location))
    folder = store_at(location)
    if not folder.is_folder():
        if not folder.is_file():
            raise DataError(f"{location}: does not exist; give a Parquet file or a folder of them")
        store, name = open_file_store(location)
        return [TableFile(store, name, None if store.is_local else store.state(name))]
    files = [TableFile(folder, name, state) for name, state in folder.walk_states() if name.endswith(".parquet")]
    if not files:
        raise DataError(f"{location}: holds no *.parquet file")
    odd = next((file for file in files if folder.is_local and not os.path.isfile(str(file))), None)
    if odd is not None:
        raise DataError(f"{odd}: is no regular file, but a broken link or a pipe; take it out of the table's folder")
    return sorted(files, key=lambda file: file.name.split("/"))


@contextmanager
def reading_parquet(origin: str) -> Iterator[None]:
    """Around everything that reads the Parquet file `origin`.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        yield
    except pa.ArrowMemoryError as error:
        raise DataError(f"{origin}: cannot be read in the memory that is left, or is damaged ({_line(error)}); write it again") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise_if_system(error)
        trouble = trouble_of(error)
        remedy = f"is not a readable Parquet file ({_line(error)}); write it again" if trouble is None else trouble.said
        raise DataError(f"{origin}: {remedy}") from None


def _line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())
