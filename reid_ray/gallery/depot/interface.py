"""Interface of where a gallery lies, and which kind of place an address means.

Small files are read and written whole (manifests, dead rows, receipts), a segment is a folder on this machine, and the log is frames after
a position. A reader calls what the first half holds; the one writer acquires the place first. Knows names, not what is in a segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from reid_ray.gallery.depot.folder_depot import FolderDepot
from reid_ray.gallery.depot.journal import LogEnd, LogRecord
from reid_ray.gallery.depot.store_depot import StoreDepot
from reid_ray.gallery.manifest import Manifest
from reid_ray.gallery.sealed.segment import SegmentFacts
from reid_ray.storage.object_store.object_client import is_store_address


class Depot(Protocol):
    """Interface (protocol) of where a gallery lies. What is gone since a newer generation is a FileNotFoundError."""

    @property
    def folder(self) -> Path:
        """On this machine; its segments/ holds what was opened or made here."""
        ...

    @property
    def longest_log(self) -> int | None:
        """Group commits after which the log should be sealed, so that it is opened soon; None if their number does not matter."""
        ...

    @property
    def ask_again_s(self) -> float:
        """How long to wait before it is asked again whether another writer has ended, seconds."""
        ...

    def exists(self) -> bool:
        """Whether a gallery is there."""
        ...

    def current(self) -> str:
        """The name of the generation that counts.

        Raises:
            DataError: no gallery is there.
        """
        ...

    def manifest(self, name: str) -> Manifest:
        """The manifest of a generation."""
        ...

    def snapshots(self) -> dict[str, Manifest]:
        """The manifests of the snapshots, by name."""
        ...

    def names(self, kind: str) -> list[str]:
        """Names of the small files of a kind, such as receipts; hidden ones are not told."""
        ...

    def read(self, name: str) -> bytes:
        """A small file."""
        ...

    def segment(self, facts: SegmentFacts) -> Path:
        """The folder of a segment; it is brought here and verified if it is not here."""
        ...

    def records(self, log: str, position: int, number: int) -> Iterator[tuple[LogRecord | None, int]]:
        """(frame, position after it) of what a log holds after a position, the first of that number; None where nothing was written."""
        ...

    def confirm(self, name: str) -> None:
        """Refuse what was read of a generation if parts of it may have been gone by then (FileNotFoundError)."""
        ...

    def keep_here(self, names: set[str]) -> None:
        """Remove copies of segments, but those of these names; at a folder there are none."""
        ...

    def close(self) -> None:
        """Give back what is open; copies go."""
        ...

    def acquire(self) -> None:
        """Become the one writer.

        Raises:
            HeldByAnotherError: another is.
        """
        ...

    def release(self) -> None:
        """Be the writer no more."""
        ...

    def assure(self) -> None:
        """Be sure to be the writer still.

        Raises:
            DataError: another is.
        """
        ...

    def lay_out(self) -> None:
        """Prepare an empty place for a gallery.

        Raises:
            DataError: something is there.
        """
        ...

    def write(self, name: str, data: bytes, *, private: bool = False) -> None:
        """Write a small file, durably and whole; `private`: for this user alone, where there are users."""
        ...

    def new_segment(self) -> Path:
        """An empty folder for a segment that is made here."""
        ...

    def keep_segment(self, facts: SegmentFacts) -> None:
        """Make a segment that was made here last."""
        ...

    def new_log(self) -> str:
        """The name of an empty log."""
        ...

    def claim(self, log: str, position: int) -> bool:
        """Whether no writer before this one can add to the log any more; False if one just did, and it must be read again."""
        ...

    def log_end(self, log: str, position: int) -> LogEnd:
        """Where the log goes on after a position."""
        ...

    def swap(self, following: Manifest, snapshots: Mapping[str, Manifest | None]) -> None:
        """Make a generation the one that counts, with snapshots that change with it (None: goes); all that they name has been kept.

        Raises:
            DataError: another is the writer.
        """
        ...

    def clear(self, current: Manifest) -> None:
        """Remove what neither the current generation nor a snapshot needs."""
        ...


def depot_of(address: str | Path, *, private: bool = False) -> Depot:
    """The place of a gallery.

    Args:
        address: a folder, or s3://, gs://, az://.
        private: copies of segments are made for this object alone, even where a machine's readers share them.
    """
    return StoreDepot(str(address), private=private) if is_store_address(str(address)) else FolderDepot(Path(address))
