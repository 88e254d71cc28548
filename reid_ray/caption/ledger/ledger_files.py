"""The files of a ledger wherever they lie: what is written appears whole and outlives every process, and names can be opened anywhere.

Knows Parquet files, their names, sizes and ages; not what a row is (write_ahead_log.py). FolderFiles are a folder that every node sees.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from reid_ray.storage import write_bytes, write_durably
from reid_ray.storage.file_systems import open_file_store
from reid_ray.storage.table_files import reading_parquet

_OWNER, _SPILL = "owner", "publishing"


class FoundFile(NamedTuple):
    """A file as its listing tells it: where it can be opened (a path or an address), bytes, seconds since 1970 of its last change."""

    location: str
    size: int
    changed: float


class LedgerFiles(Protocol):
    """What a ledger asks of the place where it lies."""

    @property
    def location(self) -> str:
        """Where it lies, for messages."""

    def owner(self) -> str | None:
        """The fencing token of the run that may write; None if there is none."""

    def write(self, name: str, table: pa.Table) -> None:
        """Write FOLDER/FILE, whole or not at all; once this returns it outlives every process."""

    def found(self, folder: str) -> list[FoundFile]:
        """The Parquet files of blocks and parts in a folder of the ledger, in order of their names."""

    def remove(self, locations: Iterable[str]) -> None:
        """Remove files that `found` told of."""

    def delete(self) -> None:
        """Remove the whole ledger."""

    def spill(self) -> AbstractContextManager[Path]:
        """A folder on this machine's disk for what does not fit into memory, private and gone at the end of the block."""


@dataclass(frozen=True)
class FolderFiles:
    """Files of a ledger in a folder, on this machine or on storage that every node sees."""

    folder: Path

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.folder)

    def owner(self) -> str | None:
        """The fencing token; None if there is none."""
        try:
            return (self.folder / _OWNER).read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def take(self, token: str) -> None:
        """Put a fencing token."""
        write_bytes(self.folder / _OWNER, token.encode())

    def write(self, name: str, table: pa.Table) -> None:
        """Hidden name, fsync, rename."""
        write_durably(self.folder / name, lambda hidden: pq.write_table(table, hidden, compression="zstd"))

    def found(self, folder: str) -> list[FoundFile]:
        """Blocks and parts of a folder."""
        files = sorted((self.folder / folder).glob("[bp]*.parquet"))
        return [FoundFile(str(file), stat.st_size, stat.st_mtime) for file, stat in ((file, file.stat()) for file in files)]

    def remove(self, locations: Iterable[str]) -> None:
        """Remove files that `found` told of."""
        for location in locations:
            os.unlink(location)

    def delete(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    @contextmanager
    def spill(self) -> Iterator[Path]:
        """A folder in the ledger's own."""
        spill = self.folder / _SPILL
        shutil.rmtree(spill, ignore_errors=True)
        spill.mkdir()
        try:
            yield spill
        finally:
            shutil.rmtree(spill)


def read_ledger_file(location: str, *, schema: pa.Schema | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """A file of a ledger, at a path or an address, in memory.

    Raises:
        DataError: it cannot be read.
    """
    with reading_parquet(location):
        return pq.read_table(_source_of(location), schema=schema, columns=None if columns is None else list(columns))


def columns_of(location: str) -> list[str]:
    """The columns of a file of a ledger, from its footer.

    Raises:
        DataError: it cannot be read.
    """
    with reading_parquet(location):
        return list(pq.read_schema(_source_of(location)).names)


def _source_of(location: str) -> Any:
    store, name = open_file_store(location)
    local = store.local_path(name)
    return store.open(name) if local is None else local
