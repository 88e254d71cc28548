"""A gallery in a folder: files that appear whole and are on the disk, CURRENT replaced in one step, a lock beside the folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.gallery.depot.journal import LogRecord, read_records
from reid_ray.gallery.manifest import (
    CURRENT,
    DEAD,
    FOLDERS,
    GENERATIONS,
    LOGS,
    RECEIPTS,
    SEGMENTS,
    SNAPSHOTS,
    Manifest,
    manifest_bytes,
    manifest_name,
    manifest_of,
    needed_names,
)
from reid_ray.gallery.sealed.segment import SegmentFacts
from reid_ray.storage.files import sync, write_durably
from reid_ray.storage.lock import OutputLock


class FolderDepot:
    """As Depot, in a folder.

    Args:
        folder: the gallery.
    """

    longest_log: int | None = None
    ask_again_s = 0.02

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = OutputLock(folder, "gallery")

    def __str__(self) -> str:
        return str(self.folder)

    def exists(self) -> bool:
        """As Depot."""
        return (self.folder / CURRENT).is_file()

    def current(self) -> str:
        """As Depot."""
        try:
            name = (self.folder / CURRENT).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise DataError(f"{self.folder}: holds no gallery (no file {CURRENT}); make one with `reid-ray gallery add`") from None
        if os.sep in name or not name.endswith(".json"):
            raise DataError(f"{self.folder / CURRENT}: names {name[:60]!r}, which is no manifest; restore it from a snapshot or a copy")
        return name

    def manifest(self, name: str) -> Manifest:
        """As Depot."""
        return self._manifest(self.folder / GENERATIONS / name)

    def snapshots(self) -> dict[str, Manifest]:
        """As Depot."""
        return {path.stem: self._manifest(path) for path in sorted((self.folder / SNAPSHOTS).glob("[!.]*.json"))}

    def names(self, kind: str) -> list[str]:
        """As Depot."""
        return sorted(path.name for path in (self.folder / kind).glob("[!.]*"))

    def read(self, name: str) -> bytes:
        """As Depot."""
        return (self.folder / name).read_bytes()

    def segment(self, facts: SegmentFacts) -> Path:
        """As Depot."""
        return self.folder / SEGMENTS / facts.name

    def records(self, log: str, position: int, number: int) -> Iterator[tuple[LogRecord | None, int]]:
        """As Depot; a position is a byte."""
        with (self.folder / LOGS / log).open("rb") as file:
            file.seek(position)
            for record, size in read_records(file, number):
                position += size
                yield record, position

    def confirm(self, name: str) -> None:
        """As Depot: a log that was opened is whole."""

    def keep_here(self, names: set[str]) -> None:
        """As Depot."""

    def close(self) -> None:
        """As Depot."""

    def acquire(self) -> None:
        """As Depot."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()

    def release(self) -> None:
        """As Depot."""
        self._lock.release()

    def assure(self) -> None:
        """As Depot."""
        if not self._lock.held:
            raise DataError(f"{self.folder}: is another writer's now; open it again")

    def lay_out(self) -> None:
        """As Depot."""
        if foreign := sorted(each.name for each in self.folder.iterdir() if each.name not in FOLDERS and not each.name.startswith(".")):
            raise DataError(f"{self.folder}: holds {foreign[0]}, which is no part of a gallery; choose a new folder")
        for name in FOLDERS:
            (self.folder / name).mkdir(exist_ok=True)

    def write(self, name: str, data: bytes, *, private: bool = False) -> None:
        """As Depot."""

        def fill(hidden: Path) -> None:
            descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)

        write_durably(self.folder / name, fill)

    def new_segment(self) -> Path:
        """As Depot."""
        place = self.folder / SEGMENTS / uuid.uuid4().hex[:16]
        place.mkdir()
        return place

    def keep_segment(self, facts: SegmentFacts) -> None:
        """As Depot: its files are on the disk already."""
        sync(self.folder / SEGMENTS)

    def new_log(self) -> str:
        """As Depot."""
        log = f"{uuid.uuid4().hex[:16]}.log"
        self.write(f"{LOGS}/{log}", b"")
        return log

    def claim(self, log: str, position: int) -> bool:
        """As Depot: the lock sees to it."""
        return True

    def log_end(self, log: str, position: int) -> FileEnd:
        """As Depot."""
        return FileEnd(self.folder / LOGS / log, position)

    def swap(self, following: Manifest, snapshots: Mapping[str, Manifest | None]) -> None:
        """As Depot. Snapshots come first: killed in between, they are of this generation or the next."""
        for name, manifest in snapshots.items():
            if manifest is None:
                (self.folder / SNAPSHOTS / f"{name}.json").unlink(missing_ok=True)
            else:
                self.write(f"{SNAPSHOTS}/{name}.json", manifest_bytes(manifest))
        name = manifest_name(following.number)
        self.write(f"{GENERATIONS}/{name}", manifest_bytes(following))
        self.write(CURRENT, f"{name}\n".encode("ascii"))

    def clear(self, current: Manifest) -> None:
        """As Depot."""
        folder = self.folder
        for hidden in (*folder.glob(f".{CURRENT}.*"), *(folder / SNAPSHOTS).glob(".*"), *(folder / RECEIPTS).glob(".*.json.*")):
            hidden.unlink()
        needed = needed_names([current, *self.snapshots().values()])
        _keep_only(folder / GENERATIONS, {manifest_name(current.number)})
        _keep_only(folder / LOGS, {current.log})
        for kind in (SEGMENTS, DEAD):
            _keep_only(folder / kind, needed[kind])

    def _manifest(self, path: Path) -> Manifest:
        return manifest_of(path.read_bytes(), origin=str(path))


class FileEnd:
    """As LogEnd, of a file. What lies beyond the last whole frame is cut off."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path, self._offset = path, offset
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        if os.fstat(self._file).st_size > offset:
            os.ftruncate(self._file, offset)
            os.fsync(self._file)

    def append(self, frames: Sequence[bytes]) -> list[int]:
        """As LogEnd; a position is a byte."""
        view, at = memoryview(b"".join(frames)), self._offset
        try:
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
            sync(self._path)
        except OSError:
            os.ftruncate(self._file, self._offset)  # a full disk: what was written of it must not be read as a frame
            raise
        positions = []
        for frame in frames:
            self._offset += len(frame)
            positions.append(self._offset)
        return positions

    def close(self) -> None:
        """As LogEnd."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _keep_only(folder: Path, names: set[str]) -> None:
    for entry in list(os.scandir(folder)):
        if entry.name in names:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    sync(folder)
