"""The one writer of a gallery: adds, deletes and erases through the log, seals and merges segments beside the readers.

A write is acknowledged once its frame of the log is on the disk, and searchable then. Several threads may write at once. While it is open,
erasures are carried out before their deadlines and retention is kept without being asked. The step between generations is
generation_writer.py's.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.bulk.adoption import Adoption, adopted
from reid_ray.gallery.bulk.erased_since import ErasedSince
from reid_ray.gallery.bulk.sealed_piece import PIECES, SealedPiece, drop_pieces
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.deadlines import WRITER_SHARE, ErasureTimer, is_due
from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.depot.journal import LogRecord
from reid_ray.gallery.erasure import rewritten_without, write_receipts
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.items import ADDED, BASE, ID, checked_items
from reid_ray.gallery.manifest import SEGMENTS, Erasure, Manifest
from reid_ray.gallery.renewal.compaction import merge_segments
from reid_ray.gallery.renewal.generation_writer import GenerationWriter
from reid_ray.gallery.renewal.reencoding import Reencoding, reencode_segments
from reid_ray.progress import Progress, unseen

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
        progress: shown how far compactions and erasures are.

    Raises:
        DataError: the folder holds no gallery, or a damaged one; HeldByAnotherError: another writer has it.
    """

    def __init__(self, folder: str | Path, *, wait_s: float = 0.0, progress: Progress = unseen) -> None:
        self.folder, self._progress = folder, progress
        self._at = GenerationWriter(folder, wait_s=wait_s)
        self._retained = time.monotonic()
        self._timer = ErasureTimer(self._waiting, self._carry_out_due, share=WRITER_SHARE, gallery=self.folder)
        try:
            self._retain()
            self._carry_out_due()
        except BaseException:
            self.close()
            raise

    @property
    def view(self) -> GalleryView:
        """The gallery as it is searched; what this writer wrote is in it at once."""
        return self._at.view

    @property
    def ask_again_s(self) -> float:
        """How often another process that waits for the gallery asks for it, seconds."""
        return self._at.depot.ask_again_s

    def add(self, table: pa.Table, *, encoder: str, origin: str = "the items") -> int:
        """Add items, or replace those whose ids are there; durable and searchable when this returns. Returns how many.

        Args:
            table: item_id, embedding, optionally thumbnail and metadata.
            encoder: fingerprint of what made the vectors.
            origin: what messages call the table.

        Raises:
            DataError: items that cannot be stored, or vectors of another encoder; nothing is added then.
        """
        self._at.refuse_other_encoder(encoder, origin)
        if not table.num_rows:
            return 0
        items = checked_items(table, origin=origin, dim=self.view.manifest.dim)
        self._at.add(items, encoder=encoder, origin=origin)
        return len(items)

    def delete(self, ids: Sequence[str]) -> int:
        """Hide items for good; their bytes go when the gallery is compacted. Returns how many there were."""
        there = sorted({ids[at] for _, at, _ in self.view.located(ids)})
        if there:
            self._at.write(LogRecord({"op": "delete"}, pa.table({ID: pa.array(there, pa.string())})))
        return len(there)

    def erase(self, ids: Sequence[str], *, request: str | None = None) -> str:
        """Hide items at once; before the deadline they are gone from every file. Returns the request's name, for its receipt.

        Ids that were deleted or replaced before are erased, too: their bytes may still lie in segments and snapshots.
        """
        now, hours = time.time(), self.view.manifest.config.erase_within_hours
        name = checked_name(request or uuid.uuid4().hex, "request")
        what = {"op": "erase", "request": name, "asked": now, "deadline": now + 3600 * hours}
        self._at.write(LogRecord(what, pa.table({ID: pa.array(sorted(set(ids)), pa.string())})))
        if hours:
            self._timer.wake()
        else:
            self.carry_out_erasures()
        return name

    def seal(self) -> None:
        """Make a segment of what the log holds, and a generation with it."""
        with self._at.maintenance, self._at.gate.exclusive():
            self._at.swap(self._at.entries())

    def adopt(self, pieces: Path, sealed: Sequence[SealedPiece], *, encoder: str, erased: ErasedSince | None = None) -> Adoption:
        """Take segments that were sealed elsewhere in one generation, as if their items were added now; then `pieces` is removed.

        Who was erased while they were sealed is not found for a moment, and gone from every file when this returns.

        Args:
            pieces: folder of the pieces, best on the gallery's file system.
            sealed: those that are taken, the oldest first: of two items of one id the later one lives.
            encoder: fingerprint of what made the vectors.
            erased: who was erased since the pieces were begun; None where nobody else can have written.

        Raises:
            DataError: a piece is damaged, a column has another type than in the gallery, or vectors are of another encoder; nothing is
                taken then.
            PiecesGoneError: a piece is not there any more; nothing is taken.
        """
        with self._at.maintenance, self._at.gate.exclusive():
            self._at.refuse_other_encoder(encoder, "the pieces")
            for piece in sealed:
                self._at.know_columns(piece.schema, origin=f"piece {piece.name}")
            if self._at.has_log:
                self._at.swap(self._at.entries())  # what the log holds comes before them
            self._at.depot.assure()
            taken = adopted(self._at.depot, self.view, pieces, sealed, erased)
            now = time.time()
            again = [Erasure(f"adopted-{uuid.uuid4().hex[:8]}", taken.erased, now, now)] if taken.erased else []
            self._at.swap(taken.entries, schema=taken.schema, erasures=[*self.view.erasures, *again])
        drop_pieces(pieces)
        if again:
            self.carry_out_erasures(due_only=True)
        return taken

    def reencode(self, pieces: Path, sealed: Sequence[SealedPiece], *, encoder: str, dim: int, drop_missing: bool = False) -> Reencoding:
        """Go over to another encoder in one generation: every item keeps its id, columns and picture, and gets its vector from the pieces.

        Snapshots stay of the encoder that they are of; to restore one goes back to it. Others search and write meanwhile.

        Args:
            pieces: folder of the pieces, which is removed in the end.
            sealed: those that are read, the oldest first: of two vectors of one id the later one counts. Their other columns do not.
            encoder: fingerprint of what made the vectors.
            dim: of them.
            drop_missing: items without a new vector are deleted.

        Raises:
            DataError: an item has no new vector, or items were added meanwhile; the gallery is as it was then, and so are the pieces.
            PiecesGoneError: a piece is not there any more.
        """
        with self._at.maintenance:
            found = reencode_segments(self._at, pieces, sealed, made_by=(dim, encoder), drop_missing=drop_missing)
        drop_pieces(pieces)
        return found

    def compact(self) -> None:
        """Carry out retention and erasures, drop dead items, merge small neighbouring segments."""
        self._retain()
        self.carry_out_erasures()
        with self._at.maintenance:
            merge_segments(self._at, self._progress)

    def carry_out_erasures(self, *, due_only: bool = False) -> None:
        """Rewrite every segment, of the gallery and its snapshots, in which an erased item lies; then write the receipts.

        Args:
            due_only: only those whose deadline is near.
        """
        with self._at.maintenance, self._at.gate.exclusive():
            due = [each for each in self.view.erasures if not due_only or is_due(each, WRITER_SHARE)]
            if not due:
                return
            self._at.swap(self._at.entries())  # the log goes, and with it what was erased before it was ever sealed
            entries, snapshots = rewritten_without(
                self._at.depot, self.view, {each for erasure in due for each in erasure.ids}, self._progress
            )
            self._at.swap(entries, snapshots=snapshots)
            drop_pieces(self._at.depot.folder / PIECES, self._at.depot.folder / SEGMENTS / uuid.uuid4().hex[:16])
            write_receipts(self._at.depot, due, generation=self.view.generation)
            self._at.swap(self._at.entries(), erasures=[each for each in self.view.erasures if each not in due])

    def snapshot(self, name: str) -> None:
        """Keep the gallery as it is now under a name; what is erased later is erased from it, too.

        Raises:
            ConfigError: a name that is none, or is taken.
        """
        if checked_name(name, "snapshot") in self._at.depot.snapshots():
            raise ConfigError(f"snapshot {name}: is there already; drop it first, or choose another name")
        self.carry_out_erasures()
        with self._at.maintenance, self._at.gate.exclusive():
            self._at.swap(self._at.entries(), keep_as=name)

    def restore(self, name: str) -> None:
        """Go back to a snapshot: what was added since is gone, what was deleted since is there again; what was erased stays erased.

        Raises:
            ConfigError: there is no such snapshot.
        """
        self.carry_out_erasures()
        with self._at.maintenance, self._at.gate.exclusive():
            known = self._at.depot.snapshots()
            if name not in known:
                raise ConfigError(f"snapshot {name}: is not there; there are {', '.join(known) or 'none'}")
            kept = known[name]
            self._at.swap(kept.segments, seal=False, made_by=(kept.dim, kept.encoder))

    def drop_snapshot(self, name: str) -> None:
        """Forget a snapshot, and the segments that it alone needed."""
        with self._at.maintenance, self._at.gate.exclusive():
            self._at.swap(self._at.entries(), snapshots={checked_name(name, "snapshot"): None})

    def close(self) -> None:
        """Give log and lock back. What was acknowledged is on the disk already."""
        self._timer.close()
        self._at.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

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


def checked_name(name: str, what: str) -> str:
    """The name of a request or snapshot, which becomes a file's.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        raise ConfigError(f"{what} {name!r}: a name has up to 100 letters (a to z), digits, - and _, and begins with none of the last two")
    return name
