"""A gallery that is open: the segments of a generation and what the log says since, kept up to date by looking, never by being told.

A reader needs no lock and never writes. It sees what another process wrote at its next `refresh`, and a newer generation whole or not at
all. Where it lies is depot/'s, searching is gallery_view.py's, writing gallery_writer.py's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from reid_ray.errors import DataError, ResourceError
from reid_ray.gallery.buffer import Buffer
from reid_ray.gallery.depot.added_items import items_of_record
from reid_ray.gallery.depot.dead_rows import alive_rows
from reid_ray.gallery.depot.interface import Depot, depot_of
from reid_ray.gallery.depot.journal import LogRecord
from reid_ray.gallery.items import ID, Items, merged_schema
from reid_ray.gallery.manifest import Erasure, Manifest
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.id_lookup import id_hashes
from reid_ray.gallery.sealed.segment import Segment
from reid_ray.gallery.shards.share import WHOLE, Position, Share

_TRIES = 20  # a generation that is swapped away while it is opened is looked for again


class OtherEncoderError(ResourceError):
    """The newest generation is of another encoder than who asks has: scores between the two would mean nothing."""


class GalleryReader:
    """An open gallery; several threads may share it.

    Args:
        folder: the gallery's folder or address.
        depot: where it lies, if that is open already.
        share: the part of it that is opened; what the log deletes is heeded in every part.
        removed: called with the ids of every delete and erasure that is read from the log.
        encoder: fingerprint of the encoder whose vectors are compared with the gallery's; None: whoever asks looks at `manifest` himself.

    Raises:
        DataError: no gallery is there, or a damaged one.
        OtherEncoderError: it is of another encoder; also of every look at what was written, once it is.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        depot: Depot | None = None,
        share: Share = WHOLE,
        removed: Callable[[list[str]], object] = lambda ids: None,
        encoder: str | None = None,
    ) -> None:
        self.folder, self._share, self._removed, self._encoder = folder, share, removed, encoder
        self.depot = depot or depot_of(folder, private=share != WHOLE)
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self.manifest: Manifest
        self._segments: list[LivePart] = []
        self._buffer: LivePart
        self.log_position = self.log_frames = 0
        self.schema: pa.Schema
        self.erasures: list[Erasure] = []
        self._open_newest()

    @property
    def generation(self) -> int:
        """Number of the generation that is open."""
        return self.manifest.number

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self.parts()))

    @property
    def position(self) -> Position:
        """How far it has read."""
        with self._lock:
            return Position(self.generation, self.log_frames)

    def refresh(self, until: Position | None = None) -> None:
        """See what was written since: frames of the log, or a newer generation, which is opened beside the searches.

        Args:
            until: read no further than this; of a generation that is gone the newest one takes the place, as it began.
        """
        with self._looking:
            if until is not None and self.position >= until:
                return
            if self.depot.current() == self._name:
                try:
                    self._replay(until)
                    return
                except FileNotFoundError:
                    pass  # the log of a generation that was swapped away this moment
            self._open_newest(until)

    def follow(self) -> bool:
        """See what was written to the generation that is open; False, and nothing changes, where a newer one counts."""
        with self._looking:
            if self.depot.current() != self._name:
                return False
            try:
                self._replay(None)
            except FileNotFoundError:
                return False  # swapped away this moment
            return True

    def parts(self) -> list[LivePart]:
        """Segments, oldest first, then the buffer."""
        return [*self._segments, self._buffer]

    def standing(self) -> tuple[int, list[Erasure]]:
        """The generation that is open and the erasures that wait in it, both of one moment."""
        with self._lock:
            return self.manifest.number, list(self.erasures)

    def located(self, ids: Sequence[str]) -> list[tuple[LivePart, int, int]]:
        """(part, place in `ids`, row) of each living item."""
        with self._lock:
            found = []
            for part, row_N in zip(self.parts(), self._rows_of(list(ids)), strict=True):
                for at in np.flatnonzero(row_N >= 0):
                    if part.alive[row_N[at]]:
                        found.append((part, int(at), int(row_N[at])))
            return found

    def apply(self, frame: LogRecord, position: int) -> None:
        """Do what a frame of the log says; `position` is where the log goes on."""
        with self._lock:
            self.log_position = position
            self.log_frames += 1
            if frame.what["op"] == "add":
                assert frame.table is not None
                self._add(items_of_record(frame.table))
                return
            assert frame.table is not None
            ids = frame.table[ID].to_pylist()
            self._kill(ids)
            self._removed(ids)
            if frame.what["op"] == "erase":
                self.erasures.append(Erasure(frame.what["request"], tuple(ids), frame.what["asked"], frame.what["deadline"]))

    def hide(self, ids: Sequence[str]) -> None:
        """Have items found no more that a newer generation has removed, until that one is open."""
        with self._lock:
            self._kill(list(ids))

    def close(self) -> None:
        """Give files back."""
        for part in self._segments:
            assert isinstance(part.source, Segment)
            part.source.close()
        self.depot.close()

    def _add(self, items: Items) -> None:
        self._kill(items.ids())
        self.schema = merged_schema(self.schema, items.rows.schema, origin=str(self.folder))
        if not self._share.holds_log:
            return
        buffer = self._buffer.source
        assert isinstance(buffer, Buffer)
        buffer.add(items)
        self._buffer.revive(len(buffer) - len(items), len(buffer))

    def _kill(self, ids: list[str]) -> None:
        for part, row_N in zip(self.parts(), self._rows_of(ids), strict=True):
            part.kill(row_N)

    def _rows_of(self, ids: list[str]) -> list[np.ndarray]:
        """For each part, the row of each id, -1 where there is none."""
        hash_N = id_hashes(ids)
        return [part.rows_of(ids, hash_N) for part in self.parts()]

    def _open_newest(self, until: Position | None = None) -> None:
        for _ in range(_TRIES):
            name = self.depot.current()
            try:
                self._open(name, until)
                return
            except FileNotFoundError as error:
                gone = error
            except DataError:
                if self.depot.current() == name:
                    raise
        raise DataError(f"{self.folder}: {gone} is missing, although {name} names it; restore the gallery from a snapshot or a copy")

    def _open(self, name: str, until: Position | None) -> None:
        manifest = self.depot.manifest(name)
        if self._encoder not in (None, manifest.encoder):
            raise OtherEncoderError(
                f"{self.folder}: went over to encoder {manifest.encoder} in generation {manifest.number}, but questions are encoded by "
                f"{self._encoder}; start again with the encoder of the gallery"
            )
        known = {part.source.facts.name: part.source for part in self._segments if isinstance(part.source, Segment)}
        parts = []
        held = self._share.holds([entry.facts.rows for entry in manifest.segments])
        entries = [entry for entry, is_held in zip(manifest.segments, held, strict=True) if is_held]
        for entry in entries:
            segment = known.get(entry.facts.name) or Segment.open(self.depot.segment(entry.facts), entry.facts)
            parts.append(LivePart(segment, alive_rows(self.depot, entry.dead, entry.facts.rows)))
        frames = list(self.depot.records(manifest.log, 0, 0))
        self.depot.confirm(name)
        with self._lock:
            self._name, self.manifest, self.schema, self.erasures = name, manifest, manifest.schema, list(manifest.erasures)
            self._segments, self._buffer = parts, LivePart(Buffer(manifest.dim), np.zeros(0, np.bool_))
            self.log_position = self.log_frames = 0
            self._take_all(frames, until)
        self.depot.keep_here({entry.facts.name for entry in entries})

    def _replay(self, until: Position | None) -> None:
        self._take_all(self.depot.records(self.manifest.log, self.log_position, self.log_frames), until)

    def _take_all(self, frames: Iterable[tuple[LogRecord | None, int]], until: Position | None) -> None:
        for frame, position in frames:
            if until is not None and (self.manifest.number, self.log_frames) >= until:
                return
            self._take(frame, position)

    def _take(self, frame: LogRecord | None, position: int) -> None:
        if frame is None:
            self.log_position = position
        else:
            self.apply(frame, position)
