"""The end of a gallery's log and the step to its next generation, for its one writer.

A write passes the gate together with others, a swap alone: while a generation is swapped, writers wait for as long as it takes to seal what
the log holds. Whoever makes generations holds `maintenance`. Which steps there are is gallery_writer.py's; files are generations.py's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from reid_ray.errors import DataError
from reid_ray.gallery.depot.added_items import record_of_items
from reid_ray.gallery.depot.dead_rows import entry_of
from reid_ray.gallery.depot.interface import Depot, depot_of
from reid_ray.gallery.depot.journal import Journal, LogRecord
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gate import Gate
from reid_ray.gallery.generations import living_batches, new_segment
from reid_ray.gallery.items import Items, merged_schema
from reid_ray.gallery.manifest import Erasure, Manifest, SegmentEntry
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.segment import Segment
from reid_ray.storage.lock import HeldByAnotherError

_FRAME_ROWS = 8_192


class GenerationWriter:
    """A gallery as its one writer has it.

    Args:
        folder: the gallery's folder or address.
        wait_s: how long to wait for a writer that has it, seconds.

    Attributes:
        view: the gallery as it is searched; what was written here is in it at once.
        gate: a write passes it together with others, a swap alone.
        maintenance: held by whoever makes generations.

    Raises:
        DataError: the folder holds no gallery, or a damaged one; HeldByAnotherError: another writer has it.
    """

    def __init__(self, folder: str | Path, *, wait_s: float) -> None:
        self.folder = folder
        self.depot = depot_of(folder, private=True)
        self.gate = Gate()
        self.maintenance = threading.Lock()
        self._columns = threading.Lock()
        self.view = GalleryView(folder, depot=self.depot)
        _acquire(self.depot, wait_s)
        try:
            self.view.refresh()
            while not self.depot.claim(self.view.manifest.log, self.view.log_position):
                self.view.refresh()  # a writer before this one was just adding to the log
            self.view.refresh()
            self._journal = self._opened_journal()
            self._schema = self.view.schema
            self.depot.clear(self.view.manifest)
        except BaseException:
            self.depot.release()
            raise

    def add(self, items: Items, *, encoder: str, origin: str) -> None:
        """Write items, some thousands at a time.

        Raises:
            DataError: vectors of another encoder, or a column of another type; what was written before stays.
        """
        self.know_columns(items.rows.schema, origin=origin)
        for start in range(0, len(items), _FRAME_ROWS):
            frame = record_of_items(items.take(np.arange(start, min(start + _FRAME_ROWS, len(items)))))
            with self.gate.shared():
                self.refuse_other_encoder(encoder, origin)
                self._journal.append(frame)
            self._seal_if_full()

    def know_columns(self, schema: pa.Schema, *, origin: str) -> None:
        """Have columns known that are to be written.

        Raises:
            DataError: one has another type here.
        """
        with self._columns:  # two threads that bring one column in two types must not both find it new
            self._schema = merged_schema(self._schema, schema, origin=origin)

    def write(self, frame: LogRecord) -> None:
        """Write a frame; it is durable and searched when this returns."""
        with self.gate.shared():
            self._journal.append(frame)
        self._seal_if_full()

    def refuse_other_encoder(self, encoder: str, origin: str) -> None:
        """Refuse vectors of another encoder than the generation's.

        Raises:
            DataError: they are.
        """
        known = self.view.manifest.encoder
        if encoder != known:
            raise DataError(
                f"{origin}: has vectors of encoder {encoder}, but the gallery {self.folder} is of {known}; embed with that one, make a new "
                "gallery, or take this one over to the encoder by `reid-ray gallery reencode`"
            )

    @property
    def added(self) -> int:
        """How many items the log holds that live."""
        return len(self.view.parts()[-1])

    @property
    def has_log(self) -> bool:
        """Whether the log holds items, living or not."""
        return len(self.view.parts()[-1].source) > 0

    def segments(self) -> list[LivePart]:
        """The sealed parts, oldest first."""
        return self.view.parts()[:-1]

    def entries(self) -> list[SegmentEntry]:
        """The segments as they are now, dead rows written down."""
        return [self.entry(part) for part in self.segments()]

    def entry(self, part: LivePart) -> SegmentEntry:
        """A segment as it is now."""
        assert isinstance(part.source, Segment)
        return entry_of(self.depot, part.source.facts, part.alive)

    def swap(
        self,
        entries: Sequence[SegmentEntry],
        *,
        seal: bool = True,
        erasures: Sequence[Erasure] | None = None,
        schema: pa.Schema | None = None,
        snapshots: Mapping[str, Manifest | None] | None = None,
        keep_as: str | None = None,
        made_by: tuple[int, str] | None = None,
    ) -> None:
        """Write the next generation, and go over to it. The gate is held: nobody writes meanwhile.

        Args:
            entries: its segments.
            seal: with one of what the log holds.
            erasures: those that wait; None: as they are.
            schema: of its items; None: as it is.
            snapshots: those that change with it; None of one: it goes.
            keep_as: a snapshot that it is kept as, too.
            made_by: (dimension, encoder) of its vectors; None: as they are.
        """
        manifest, buffer = self.view.manifest, self.view.parts()[-1]
        row_N = np.flatnonzero(buffer.alive[: len(buffer.source)]) if seal else np.zeros(0, np.int64)
        sealed = new_segment(self.depot, living_batches([buffer], [row_N]), len(row_N), manifest, self.view.schema)
        dim, encoder = made_by or (manifest.dim, manifest.encoder)
        following = manifest.next(
            dim=dim,
            encoder=encoder,
            segments=(*entries, *([SegmentEntry(sealed, None)] if sealed else [])),
            log=self.depot.new_log(),
            schema=self.view.schema if schema is None else schema,
            erasures=tuple(self.view.erasures if erasures is None else erasures),
        )
        self.depot.assure()
        self.depot.swap(following, {**(snapshots or {}), **({keep_as: following} if keep_as is not None else {})})
        self._journal.close()
        self.view.refresh()
        self._journal = self._opened_journal()
        self.depot.clear(self.view.manifest)

    def close(self) -> None:
        """Give log and lock back."""
        self._journal.close()
        self.depot.release()
        self.view.close()

    def _seal_if_full(self) -> None:
        if self._log_is_full():
            with self.maintenance, self.gate.exclusive():
                if self._log_is_full():  # nobody else has sealed it meanwhile
                    self.swap(self.entries())

    def _log_is_full(self) -> bool:
        longest = self.depot.longest_log
        return len(self.view.parts()[-1].source) >= self.view.manifest.config.segment_rows or (
            longest is not None and self.view.log_position >= longest
        )

    def _opened_journal(self) -> Journal:
        end = self.depot.log_end(self.view.manifest.log, self.view.log_position)
        return Journal(end, self.view.log_frames, self.view.apply)


def _acquire(depot: Depot, wait_s: float) -> None:
    """Become the writer, within a time; a folder's lock is asked for often, an object store's lease less so."""
    end = time.monotonic() + wait_s
    while True:
        try:
            return depot.acquire()
        except HeldByAnotherError:
            if time.monotonic() >= end:
                raise
        time.sleep(min(depot.ask_again_s, max(end - time.monotonic(), 0.0)))
