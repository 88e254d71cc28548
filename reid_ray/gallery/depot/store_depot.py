"""A gallery at an object store: every object is written once under a name of its own, and one pointer says which of them count.

    current.json                  pointer, lease and fence in one: the generation, the snapshots, and who writes now; exchanged by
                                  conditional puts (storage/object_store)
    generations/, snapshots/      manifests
    segments/NAME/FILE, dead/     as in a folder
    log/NAME/0000000000           what one group commit wrote; numbered, each put only if it is not there

Who was taken over cannot exchange the pointer, and cannot add to a log that its successor claimed by an object of its own. A write counts
only while the lease was renewed so lately that nobody can have taken it over. What is removed was listed while the lease was surely held:
names are never used again. Knows objects; not what is in a segment.
"""

from __future__ import annotations

import errno
import shutil
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from reid_ray.errors import DataError
from reid_ray.gallery.depot.journal import LogRecord, first_number, read_records
from reid_ray.gallery.depot.segment_copies import open_copies
from reid_ray.gallery.manifest import (
    GENERATIONS,
    LOGS,
    SEGMENTS,
    SNAPSHOTS,
    Manifest,
    manifest_bytes,
    manifest_of,
    needed_names,
)
from reid_ray.gallery.sealed.segment import Segment, SegmentFacts
from reid_ray.storage.object_store.lease import OutputLease
from reid_ray.storage.object_store.object_client import ObjectFolder
from reid_ray.storage.object_store.pointer import POINTER

_THREADS = 16
_PIECE = 8 << 20  # bytes of a segment that one request fetches
_LONGEST_LOG = 512  # objects, read 16 side by side when the gallery is opened


class StoreDepot:
    """As Depot, at an object store.

    Args:
        address: the gallery's.
        private: copies of segments are made for this object alone.
    """

    longest_log: int | None = _LONGEST_LOG
    ask_again_s = 0.5

    def __init__(self, address: str, *, private: bool = False) -> None:
        self._objects = ObjectFolder(address)
        self._lease = OutputLease(self._objects, "gallery")
        self._me = uuid.uuid4().bytes
        self._private = private
        self._held = ExitStack()
        self._removed = weakref.finalize(self, self._held.close)

    def __str__(self) -> str:
        return str(self._objects)

    @cached_property
    def folder(self) -> Path:
        """As Depot; made when the first segment needs it."""
        folder = self._held.enter_context(open_copies(str(self._objects), private=self._private))
        (folder / SEGMENTS).mkdir(exist_ok=True)
        return folder

    def exists(self) -> bool:
        """As Depot."""
        return self._lease.read()[1].gallery is not None

    def current(self) -> str:
        """As Depot."""
        return str(self._state()["generation"])

    def manifest(self, name: str) -> Manifest:
        """As Depot."""
        return self._manifest(f"{GENERATIONS}/{name}")

    def snapshots(self) -> dict[str, Manifest]:
        """As Depot."""
        return {name: self._manifest(f"{SNAPSHOTS}/{file}") for name, file in sorted(self._state()["snapshots"].items())}

    def names(self, kind: str) -> list[str]:
        """As Depot."""
        found = (each.name.rpartition("/")[2] for each in self._objects.listed(kind))
        return sorted(name for name in found if not name.startswith("."))

    def read(self, name: str) -> bytes:
        """As Depot."""
        found = self._objects.read(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", self._objects.locate(name))
        return found.data

    def segment(self, facts: SegmentFacts) -> Path:
        """As Depot: its files are fetched side by side, and their digests and vectors looked at, before it has its name here."""
        place = self.folder / SEGMENTS / facts.name
        if place.is_dir():
            return place
        hidden = place.with_name(f".{facts.name}.{uuid.uuid4().hex[:8]}")
        hidden.mkdir()
        try:
            self._fetch(facts, hidden)
            copy = Segment.open(hidden, facts)
            faults = copy.faults()
            copy.close()
            if faults:
                raise DataError(faults[0].replace(str(hidden), f"{self._objects.place}/{SEGMENTS}/{facts.name}"))
            for path in hidden.iterdir():
                path.chmod(0o444)
            try:
                hidden.rename(place)
            except OSError:  # another of this machine's readers was quicker
                if not place.is_dir():
                    raise
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        return place

    def records(self, log: str, position: int, number: int) -> Iterator[tuple[LogRecord | None, int]]:
        """As Depot; a position is a number of objects, and within one that of the object, whose frames before `number` are passed over."""
        for data in self._log_objects(log, position):
            file, size = BytesIO(data), len(self._me)
            file.seek(size)
            frames = []
            for frame, length in read_records(file):
                frames.append(frame)
                size += length
            first = first_number(data[len(self._me) :])
            if size != len(data) or first > number:
                raise DataError(f"{self._log_name(log, position)}: is damaged; restore the gallery from a snapshot or a copy")
            position += 1
            left = frames[number - first :] if frames else []
            number += len(left)
            yield from ((frame, position - 1) for frame in left[:-1])
            yield (left[-1] if left else None), position

    def confirm(self, name: str) -> None:
        """As Depot."""
        if (now := self.current()) != name:
            raise FileNotFoundError(errno.ENOENT, f"{now} is the generation by now", name)

    def keep_here(self, names: set[str]) -> None:
        """As Depot."""
        if self._private and "folder" not in vars(self):
            return  # nothing was fetched
        for place in list((self.folder / SEGMENTS).iterdir()):
            if place.name not in names and not place.name.startswith("."):
                gone = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
                try:
                    place.rename(gone)
                except FileNotFoundError:  # another of this machine's readers was quicker
                    continue
                shutil.rmtree(gone)

    def close(self) -> None:
        """As Depot."""
        self._removed()

    def acquire(self) -> None:
        """As Depot."""
        self._lease.acquire()

    def release(self) -> None:
        """As Depot."""
        self._lease.release()

    def assure(self) -> None:
        """As Depot: where the last sign of life is old, another is given first."""
        self._lease.assure()

    def lay_out(self) -> None:
        """As Depot."""
        if foreign := [name for name in self._objects.entries() if name != POINTER]:
            raise DataError(f"{self}: holds {foreign[0]}, which is no part of a new gallery; choose another address")

    def write(self, name: str, data: bytes, *, private: bool = False) -> None:
        """As Depot; who may read it is the bucket's to say."""
        self._objects.put(name, data)

    def new_segment(self) -> Path:
        """As Depot."""
        place = self.folder / SEGMENTS / uuid.uuid4().hex[:16]
        place.mkdir()
        return place

    def keep_segment(self, facts: SegmentFacts) -> None:
        """As Depot: its files are put side by side."""
        place = self.folder / SEGMENTS / facts.name
        self._objects.put_all((f"{SEGMENTS}/{facts.name}/{name}", place / name) for name in facts.files)

    def new_log(self) -> str:
        """As Depot: a log that nobody wrote to has no object."""
        return f"{uuid.uuid4().hex[:16]}.log"

    def claim(self, log: str, position: int) -> bool:
        """As Depot."""
        return self._objects.put_new(self._log_name(log, position), self._me) is not None

    def log_end(self, log: str, position: int) -> ObjectEnd:
        """As Depot."""
        return ObjectEnd(self, log, position)

    def put_group(self, log: str, position: int, frames: bytes) -> None:
        """Write what one group commit holds.

        Raises:
            DataError: the store does not take it, or another is the writer; it may be there then, and is acknowledged to nobody.
        """
        if self._objects.put_new(self._log_name(log, position), self._me + frames) is None:
            raise DataError(f"{self}: is another writer's now; open it again")
        self.assure()

    def swap(self, following: Manifest, snapshots: Mapping[str, Manifest | None]) -> None:
        """As Depot: manifests first, then all of it counts by one conditional put."""
        state = self._lease.pointer.gallery or {"snapshots": {}}
        kept = dict(state["snapshots"])
        for name, manifest in snapshots.items():
            kept.pop(name, None)
            if manifest is not None:
                kept[name] = f"{name}-{uuid.uuid4().hex[:8]}.json"
                self._objects.put(f"{SNAPSHOTS}/{kept[name]}", manifest_bytes(manifest))
        generation = f"{following.number:08d}-{uuid.uuid4().hex[:8]}.json"
        self._objects.put(f"{GENERATIONS}/{generation}", manifest_bytes(following))
        self._lease.change(gallery={"generation": generation, "snapshots": kept})

    def clear(self, current: Manifest) -> None:
        """As Depot: a request lists a thousand objects."""
        there = [each.name for each in self._objects.listed()]
        self.assure()
        state = self._lease.pointer.gallery
        assert state is not None
        snapshots = {name: self._manifest(f"{SNAPSHOTS}/{file}") for name, file in state["snapshots"].items()}
        needed = needed_names([current, *snapshots.values()])
        kept = {GENERATIONS: {state["generation"]}, SNAPSHOTS: set(state["snapshots"].values()), LOGS: {current.log}, **needed}
        parts = [(name, name.split("/")) for name in there]
        self._objects.remove([name for name, part in parts if part[0] in kept and part[1] not in kept[part[0]]])
        self.keep_here(needed[SEGMENTS])

    def _fetch(self, facts: SegmentFacts, folder: Path) -> None:
        pieces = []
        for name, (size, _) in facts.files.items():
            (folder / name).touch()
            pieces += [(name, start, min(start + _PIECE, size)) for start in range(0, size, _PIECE)]

        def fetch(piece: tuple[str, int, int]) -> None:
            name, start, stop = piece
            data = self._objects.read_range(f"{SEGMENTS}/{facts.name}/{name}", start, stop)
            with (folder / name).open("r+b") as file:
                file.seek(start)
                file.write(data)

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="segment") as pool:
            for _ in pool.map(fetch, pieces):
                pass

    def _state(self) -> Mapping[str, Any]:
        state = self._lease.read()[1].gallery
        if state is None:
            raise DataError(f"{self}: holds no gallery (no {POINTER} that names one); make one with `reid-ray gallery add`")
        return state

    def _manifest(self, name: str) -> Manifest:
        return manifest_of(self.read(name), origin=self._objects.locate(name))

    def _log_name(self, log: str, position: int) -> str:
        return f"{LOGS}/{log}/{position:010d}"

    def _log_objects(self, log: str, position: int) -> Iterator[bytes]:
        if not position:  # all that is there side by side, then what came meanwhile
            names = [f"{LOGS}/{log}/{each.name.rpartition('/')[2]}" for each in self._objects.listed(f"{LOGS}/{log}")]
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="log") as pool:
                yield from pool.map(self.read, sorted(names))
            position = len(names)
        while (found := self._objects.read(self._log_name(log, position))) is not None:
            yield found.data
            position += 1


class ObjectEnd:
    """As LogEnd, of numbered objects: one put, and so one round trip, for each group commit."""

    def __init__(self, depot: StoreDepot, log: str, position: int) -> None:
        self._depot, self._log, self._position = depot, log, position

    def append(self, frames: Sequence[bytes]) -> list[int]:
        """As LogEnd; a position is a number of objects."""
        self._depot.put_group(self._log, self._position, b"".join(frames))
        self._position += 1
        return [self._position] * len(frames)

    def close(self) -> None:
        """As LogEnd: nothing is open."""
