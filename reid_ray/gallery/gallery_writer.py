"""The one writer of a gallery: adds, deletes and erases through the log, seals and merges segments beside the readers.

A write is acknowledged once its frame of the log is on the disk, and searchable then. Several threads may write at once; while a generation
is swapped they wait for as long as it takes to seal what the log holds. While it is open, erasures are carried out before their deadlines
and retention is kept without being asked. Steps on the disk are generations.py's.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.bulk.adoption import Adoption, adopted
from reid_ray.gallery.bulk.sealed_piece import PIECES, SealedPiece, drop_pieces
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.deadlines import WRITER_SHARE, ErasureTimer, is_due
from reid_ray.gallery.depot.added_items import record_of_items
from reid_ray.gallery.depot.dead_rows import entry_of
from reid_ray.gallery.depot.interface import Depot, depot_of
from reid_ray.gallery.depot.journal import Journal, LogRecord
from reid_ray.gallery.erasure import rewritten_without, write_receipts
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gate import Gate
from reid_ray.gallery.generations import living_batches, new_segment
from reid_ray.gallery.items import ADDED, BASE, ID, checked_items, merged_schema
from reid_ray.gallery.manifest import Erasure, Manifest, SegmentEntry
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.segment import Segment
from reid_ray.storage.lock import HeldByAnotherError

_FRAME_ROWS = 8_192
_RETAIN_EVERY_S = 3_600.0


def create_gallery(folder: str | Path, *, dim: int, encoder: str, config: GalleryConfig | None = None, after: int = 0) -> None:
    """Make an empty gallery.

    Args:
        folder: a folder or address; it must be new or empty.
        dim: of the vectors.
        encoder: fingerprint of what makes them; others' vectors are refused.
        config: what is fixed for good.
        after: generation of the gallery whose place it will take: whoever reads that one sees that a newer one is there.

    Raises:
        DataError: something is there already.
    """
    depot = depot_of(folder, private=True)
    depot.acquire()
    try:
        if depot.exists():
            raise DataError(f"{folder}: holds a gallery already; add to it, or choose another place")
        depot.lay_out()
        depot.swap(Manifest(after + 1, dim, encoder, config or GalleryConfig(), BASE, (), depot.new_log(), ()), {})
    finally:
        depot.release()
        depot.close()


class GalleryWriter:
    """An open gallery for its writer; a context manager.

    Args:
        folder: the gallery's folder or address.
        wait_s: how long to wait for a writer that has it, seconds.

    Attributes:
        view: the gallery as it is searched; what this writer wrote is in it at once.

    Raises:
        DataError: the folder holds no gallery, or a damaged one; HeldByAnotherError: another writer has it.
    """

    def __init__(self, folder: str | Path, *, wait_s: float = 0.0) -> None:
        self.folder = folder
        self._depot = depot_of(folder, private=True)
        self._gate = Gate()
        self._columns = threading.Lock()
        self._maintenance = threading.Lock()
        self.view = GalleryView(folder, depot=self._depot)
        _acquire(self._depot, wait_s)
        try:
            self.view.refresh()
            while not self._depot.claim(self.view.manifest.log, self.view.log_position):
                self.view.refresh()  # a writer before this one was just adding to the log
            self.view.refresh()
            self._journal = self._opened_journal()
            self._schema = self.view.schema
            self._depot.clear(self.view.manifest)
        except BaseException:
            self._depot.release()
            raise
        self._retained = time.monotonic()
        self._timer = ErasureTimer(self._waiting, self._carry_out_due, share=WRITER_SHARE, gallery=self.folder)
        try:
            self._retain()
            self._carry_out_due()
        except BaseException:
            self.close()
            raise

    @property
    def ask_again_s(self) -> float:
        """How often another process that waits for the gallery asks for it, seconds."""
        return self._depot.ask_again_s

    def add(self, table: pa.Table, *, encoder: str, origin: str = "the items") -> int:
        """Add items, or replace those whose ids are there; durable and searchable when this returns. Returns how many.

        Args:
            table: item_id, embedding, optionally thumbnail and metadata.
            encoder: fingerprint of what made the vectors.
            origin: what messages call the table.

        Raises:
            DataError: items that cannot be stored, or vectors of another encoder; nothing is added then.
        """
        manifest = self.view.manifest
        if encoder != manifest.encoder:
            raise DataError(
                f"{origin}: has vectors of encoder {encoder}, but the gallery {self.folder} is of {manifest.encoder}; embed with that one, "
                "or make a new gallery"
            )
        if not table.num_rows:
            return 0
        items = checked_items(table, origin=origin, dim=manifest.dim)
        with self._columns:  # two threads that bring one column in two types must not both find it new
            self._schema = merged_schema(self._schema, items.rows.schema, origin=origin)
        for start in range(0, len(items), _FRAME_ROWS):
            self._write(record_of_items(items.take(np.arange(start, min(start + _FRAME_ROWS, len(items))))))
        return len(items)

    def delete(self, ids: Sequence[str]) -> int:
        """Hide items for good; their bytes go when the gallery is compacted. Returns how many there were."""
        there = sorted({ids[at] for _, at, _ in self.view.located(ids)})
        if there:
            self._write(LogRecord({"op": "delete"}, pa.table({ID: pa.array(there, pa.string())})))
        return len(there)

    def erase(self, ids: Sequence[str], *, request: str | None = None) -> str:
        """Hide items at once; before the deadline they are gone from every file. Returns the request's name, for its receipt.

        Ids that were deleted or replaced before are erased, too: their bytes may still lie in segments and snapshots.
        """
        now, hours = time.time(), self.view.manifest.config.erase_within_hours
        name = checked_name(request or uuid.uuid4().hex, "request")
        what = {"op": "erase", "request": name, "asked": now, "deadline": now + 3600 * hours}
        self._write(LogRecord(what, pa.table({ID: pa.array(sorted(set(ids)), pa.string())})))
        if hours:
            self._timer.wake()
        else:
            self.carry_out_erasures()
        return name

    def seal(self) -> None:
        """Make a segment of what the log holds, and a generation with it."""
        with self._maintenance, self._gate.exclusive():
            self._swap(self._entries())

    def adopt(self, pieces: Path, sealed: Sequence[SealedPiece]) -> Adoption:
        """Take segments that were sealed elsewhere in one generation, as if their items were added now; then `pieces` is removed.

        Args:
            pieces: folder of the pieces, best on the gallery's file system.
            sealed: those that are taken, the oldest first: of two items of one id the later one lives.

        Raises:
            DataError: a piece is damaged, or a column has another type than in the gallery; nothing is taken then.
        """
        with self._maintenance, self._gate.exclusive():
            if len(self.view.parts()[-1].source):
                self._swap(self._entries())  # what the log holds comes before them
            self._depot.assure()
            taken = adopted(self._depot, self.view, pieces, sealed)
            self._swap(taken.entries, schema=taken.schema)
            with self._columns:
                self._schema = self.view.schema
        drop_pieces(pieces)
        return taken

    def compact(self) -> None:
        """Carry out retention and erasures, drop dead items, merge small neighbouring segments."""
        self._retain()
        self.carry_out_erasures()
        with self._maintenance:
            with self._gate.exclusive():
                if len(self.view.parts()[-1].source):
                    self._swap(self._entries())  # what the log holds is merged with its neighbours, too
            for group in self._groups():
                self._merge(group)

    def carry_out_erasures(self, *, due_only: bool = False) -> None:
        """Rewrite every segment, of the gallery and its snapshots, in which an erased item lies; then write the receipts.

        Args:
            due_only: only those whose deadline is near.
        """
        with self._maintenance, self._gate.exclusive():
            due = [each for each in self.view.erasures if not due_only or is_due(each, WRITER_SHARE)]
            if not due:
                return
            self._swap(self._entries())  # the log goes, and with it what was erased before it was ever sealed
            entries, snapshots = rewritten_without(self._depot, self.view, {each for erasure in due for each in erasure.ids})
            self._swap(entries, snapshots=snapshots)
            drop_pieces(self._depot.folder / PIECES)
            write_receipts(self._depot, due, generation=self.view.generation)
            self._swap(self._entries(), erasures=[each for each in self.view.erasures if each not in due])

    def snapshot(self, name: str) -> None:
        """Keep the gallery as it is now under a name; what is erased later is erased from it, too.

        Raises:
            ConfigError: a name that is none, or is taken.
        """
        if checked_name(name, "snapshot") in self._depot.snapshots():
            raise ConfigError(f"snapshot {name}: is there already; drop it first, or choose another name")
        self.carry_out_erasures()
        with self._maintenance, self._gate.exclusive():
            self._swap(self._entries(), keep_as=name)

    def restore(self, name: str) -> None:
        """Go back to a snapshot: what was added since is gone, what was deleted since is there again; what was erased stays erased.

        Raises:
            ConfigError: there is no such snapshot.
        """
        self.carry_out_erasures()
        with self._maintenance, self._gate.exclusive():
            known = self._depot.snapshots()
            if name not in known:
                raise ConfigError(f"snapshot {name}: is not there; there are {', '.join(known) or 'none'}")
            self._swap(list(known[name].segments), seal=False)

    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot, and the segments that it alone needed."""
        with self._maintenance, self._gate.exclusive():
            self._swap(self._entries(), snapshots={checked_name(name, "snapshot"): None})

    def close(self) -> None:
        """Give log and lock back. What was acknowledged is on the disk already."""
        self._timer.close()
        self._journal.close()
        self._depot.release()
        self.view.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _write(self, frame: LogRecord) -> None:
        with self._gate.shared():
            self._journal.append(frame)
        if self._log_is_full():
            with self._maintenance, self._gate.exclusive():
                if self._log_is_full():  # nobody else has sealed it meanwhile
                    self._swap(self._entries())

    def _log_is_full(self) -> bool:
        longest = self._depot.longest_log
        return len(self.view.parts()[-1].source) >= self.view.manifest.config.segment_rows or (
            longest is not None and self.view.log_position >= longest
        )

    def _opened_journal(self) -> Journal:
        end = self._depot.log_end(self.view.manifest.log, self.view.log_position)
        return Journal(end, self.view.log_frames, self.view.apply)

    def _entries(self) -> list[SegmentEntry]:
        """The segments as they are now, dead rows written down."""
        return [self._entry(part) for part in self._segments()]

    def _segments(self) -> list[LivePart]:
        return self.view.parts()[:-1]

    def _entry(self, part: LivePart) -> SegmentEntry:
        assert isinstance(part.source, Segment)
        return entry_of(self._depot, part.source.facts, part.alive)

    def _swap(
        self,
        entries: Sequence[SegmentEntry],
        *,
        seal: bool = True,
        erasures: Sequence[Erasure] | None = None,
        schema: pa.Schema | None = None,
        snapshots: Mapping[str, Manifest | None] | None = None,
        keep_as: str | None = None,
    ) -> None:
        """Write the next generation of segments, and of what the log holds, and go over to it. Nobody writes meanwhile."""
        buffer = self.view.parts()[-1]
        row_N = np.flatnonzero(buffer.alive[: len(buffer.source)]) if seal else np.zeros(0, np.int64)
        sealed = new_segment(self._depot, living_batches([buffer], [row_N]), len(row_N), self.view.manifest, self.view.schema)
        following = self.view.manifest.next(
            segments=(*entries, *([SegmentEntry(sealed, None)] if sealed else [])),
            log=self._depot.new_log(),
            schema=self.view.schema if schema is None else schema,
            erasures=tuple(self.view.erasures if erasures is None else erasures),
        )
        self._depot.assure()
        self._depot.swap(following, {**(snapshots or {}), **({keep_as: following} if keep_as is not None else {})})
        self._journal.close()
        self.view.refresh()
        self._journal = self._opened_journal()
        self._depot.clear(self.view.manifest)

    def _waiting(self) -> Sequence[Erasure]:
        if time.monotonic() - self._retained > _RETAIN_EVERY_S:
            self._retain()
        return self.view.erasures

    def _carry_out_due(self) -> None:
        self.carry_out_erasures(due_only=True)

    def _retain(self) -> None:
        self._retained = time.monotonic()
        days = self.view.manifest.config.retention_days
        if days is not None and (old := self.view.ids({ADDED: {"to": time.time() - 86_400 * days}})):
            self.erase(old, request=f"retention-{uuid.uuid4().hex[:8]}")

    def _groups(self) -> list[list[LivePart]]:
        """Neighbouring segments that become one: small ones together, those with dead rows alone."""
        most = self.view.manifest.config.merge_rows
        groups: list[list[LivePart]] = []
        rows = 0
        for part in self._segments():
            living = int(np.count_nonzero(part.alive))
            if groups and rows + living <= most:
                groups[-1].append(part)
                rows += living
            else:
                groups.append([part])
                rows = living
        return [group for group in groups if len(group) > 1 or not group[0].alive.all()]

    def _merge(self, group: Sequence[LivePart]) -> None:
        """One generation in which the segments of a group are one. It is written while others write; they wait for the swap alone."""
        names = {part.source.facts.name for part in group if isinstance(part.source, Segment)}
        rows = [np.flatnonzero(part.alive) for part in group]
        facts = new_segment(self._depot, living_batches(group, rows), sum(map(len, rows)), self.view.manifest, self.view.schema)
        with self._gate.exclusive():
            entries: list[SegmentEntry] = []
            placed = False
            for part in self._segments():
                assert isinstance(part.source, Segment)
                if part.source.facts.name not in names:
                    entries.append(self._entry(part))
                elif not placed:
                    placed = True
                    now = {each.source.facts.name: each.alive for each in self._segments() if isinstance(each.source, Segment)}
                    alive = [
                        now[each.source.facts.name][row_N]
                        for each, row_N in zip(group, rows, strict=True)
                        if isinstance(each.source, Segment)
                    ]
                    if facts is not None:
                        entries.append(entry_of(self._depot, facts, np.concatenate(alive)))
            self._swap(entries)


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


def checked_name(name: str, what: str) -> str:
    """The name of a request or snapshot, which becomes a file's.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        raise ConfigError(f"{what} {name!r}: a name has up to 100 letters (a to z), digits, - and _, and begins with none of the last two")
    return name
