"""What a service changes in its gallery: deletes, erases, snapshots, compacts; each answer says where the gallery stands then.

Knows a gallery's writer and when a change is refused; not who asks, HTTP, or where the items come from (adding/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from reid_ray.errors import ConfigError, ReidRayError
from reid_ray.gallery.erasure import is_receipt_of, read_receipt, receipt_names
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.gallery_writer import GalleryWriter, checked_name
from reid_ray.gallery.manifest import Erasure
from reid_ray.serve.operations.writer_turns import WriterTurns

_Done = TypeVar("_Done")


class ConflictError(ReidRayError):
    """A change does not fit what is there: another number of items than expected, or a name that is taken."""


class NotThereError(ReidRayError):
    """What is asked for by name is not there."""


@dataclass(frozen=True)
class Which:
    """The items that a change is about: by ids, or all that pass a filter.

    expect: how many that must be; another number is a conflict, and nothing is changed.
    """

    item_ids: tuple[str, ...] | None = None
    where: Mapping[str, Any] | None = None
    expect: int | None = None

    def ids(self, view: GalleryView) -> list[str]:
        """Their ids; of those that were given also ones that the gallery lacks, but without repeats.

        Raises:
            ConfigError: neither or both are given, or a filter that passes everything.
            ConflictError: another number than expected is there.
        """
        if (self.item_ids is None) == (self.where is None):
            raise ConfigError("item_ids, where: say which items by one of them")
        if self.item_ids is None and not self.where:
            raise ConfigError("where: a filter that passes everything is not taken; say which items")
        ids = view.ids(self.where) if self.item_ids is None else list(dict.fromkeys(self.item_ids))
        there = len(ids) if self.item_ids is None else len(view.located(ids))
        if self.expect is not None and there != self.expect:
            raise ConflictError(f"expect: {self.expect:,} items were expected, but {there:,} would go; nothing was changed")
        return ids


@dataclass(frozen=True)
class GalleryStand:
    """Where the gallery stands: its generation, the writes since that its log holds, and its items."""

    generation: int
    position: int
    items: int

    @classmethod
    def of(cls, view: GalleryView) -> GalleryStand:
        """As a view has it."""
        position = view.position
        return cls(position[0], position[1], len(view))


@dataclass(frozen=True)
class ErasureState:
    """What became of an erasure: times are in UTC (2026-01-31T12:00:00Z), `receipt` is there once it is carried out."""

    request: str
    items: int
    done: bool
    asked: str
    deadline: str
    receipt: dict[str, Any] | None


class GalleryChanges:
    """The changes of a gallery by its item ids, filters and names; each gives a future, which is done once the change is on the disk.

    Args:
        turns: the writer.
        erased: called with the ids of an erasure before it counts as done: what else holds them lets them go.
    """

    def __init__(self, turns: WriterTurns, *, erased: Callable[[Collection[str]], object] = lambda ids: None) -> None:
        self.turns, self._erased = turns, erased

    def delete(self, which: Which) -> Future[tuple[list[str], GalleryStand]]:
        """Hide items for good. Gives the ids of those that were there.

        Raises:
            ConfigError, ConflictError: (from the future) as Which.ids.
        """

        def delete(writer: GalleryWriter) -> tuple[list[str], GalleryStand]:
            ids = which.ids(writer.view)
            there = [ids[at] for _, at, _ in writer.view.located(ids)]
            writer.delete(there)
            return there, GalleryStand.of(writer.view)

        return self.turns.ask(delete)

    def erase(self, which: Which, *, request: str, now: bool = False) -> Future[tuple[ErasureState, list[str]]]:
        """Hide items at once, and have them gone from every file by the deadline, or before this is done (`now`). Gives their ids, too.

        A request that is there already is answered as it stands if it is of the same items, so it may be asked for again.

        Raises:
            ConfigError: a name that is none.
            ConfigError, ConflictError: (from the future) as Which.ids; or a request of that name is of other items, or no item passes the
                filter: a receipt of nobody would prove what was not done.
        """
        checked_name(request, "request")

        def erase(writer: GalleryWriter) -> tuple[ErasureState, list[str]]:
            if self._known(writer, which, request):
                ids = list(which.item_ids or ())
            else:
                ids = which.ids(writer.view)
                if not ids:
                    raise ConflictError(f"where: no item passes, so nothing was erased, and there is no request {request}")
                writer.erase(ids, request=request)
            self._erased(ids)  # of a request that is made again, too: the first may have been cut off before
            if now:
                writer.carry_out_erasures()
            return self._state(writer.view, request), ids

        return self.turns.ask(erase)

    def erasures(self, view: GalleryView) -> list[ErasureState]:
        """Of all requests: first those to be carried out, by deadline; then those that are done, the latest first."""
        pending = [_pending(each) for each in sorted(view.erasures, key=lambda each: each.deadline)]
        names = set(receipt_names(self.turns.gallery)) - {each.request for each in pending}
        done = [state for name in names if (state := self._done(name)) is not None]
        return [*pending, *sorted(done, key=lambda state: state.asked, reverse=True)]

    def erasure(self, view: GalleryView, request: str) -> ErasureState:
        """Of one request.

        Raises:
            NotThereError: there is none of that name.
        """
        return self._state(view, request)

    def snapshot(self, name: str) -> Future[GalleryStand]:
        """Keep the gallery as it is now under a name.

        Raises:
            ConfigError: a name that is none.
            ConflictError: (from the future) it is taken.
        """
        checked_name(name, "snapshot")

        def snapshot(writer: GalleryWriter) -> GalleryStand:
            if name in writer.view.depot.snapshots():
                raise ConflictError(f"snapshot {name}: is there already; drop it first, or choose another name")
            writer.snapshot(name)
            return GalleryStand.of(writer.view)

        return self.turns.ask(snapshot)

    def restore(self, name: str) -> Future[GalleryStand]:
        """Go back to a snapshot; what was erased since stays erased.

        Raises:
            NotThereError: (from the future) there is none of that name.
        """
        return self._of_snapshot(name, lambda writer: writer.restore(name))

    def drop(self, name: str) -> Future[GalleryStand]:
        """Forget a snapshot.

        Raises:
            NotThereError: (from the future) there is none of that name.
        """
        return self._of_snapshot(name, lambda writer: writer.drop_snapshot(name))

    def compact(self, *, wait_s: float) -> GalleryStand:
        """Carry out erasures and retention, drop deleted items, merge segments; other changes go on meanwhile. Returns when that is done.

        Raises:
            BusyError: another process writes.
        """
        with self.turns.kept_open(wait_s=wait_s) as writer:
            writer.compact()
            writer.seal()
            return GalleryStand.of(writer.view)

    def generations(self, view: GalleryView) -> dict[str, Any]:
        """The generation that counts: its segments with their items, the writes and items of the log, and the snapshots."""
        view.refresh()
        parts, manifest = view.parts(), view.manifest
        segments = [
            {
                "name": entry.facts.name,
                "rows": entry.facts.rows,
                "items": len(part),
                "bytes": sum(size for size, _ in entry.facts.files.values()),
            }
            for entry, part in zip(manifest.segments, parts[:-1], strict=True)
        ]
        snapshots = [
            {"name": name, "generation": kept.number, "rows": sum(entry.facts.rows for entry in kept.segments)}
            for name, kept in view.depot.snapshots().items()
        ]
        log = {"writes": view.log_frames, "items": len(parts[-1])}
        return {"generation": manifest.number, "segments": segments, "log": log, "snapshots": snapshots}

    def _of_snapshot(self, name: str, change: Callable[[GalleryWriter], object]) -> Future[GalleryStand]:
        def named(writer: GalleryWriter) -> GalleryStand:
            known = writer.view.depot.snapshots()
            if name not in known:
                raise NotThereError(f"snapshot {name[:100]!r}: is not there; there are {', '.join(known) or 'none'}")
            change(writer)
            return GalleryStand.of(writer.view)

        return self.turns.ask(named)

    def _known(self, writer: GalleryWriter, which: Which, request: str) -> bool:
        """Whether the request was made before, for the same items."""
        pending = next((each for each in writer.view.erasures if each.request == request), None)
        receipt = read_receipt(self.turns.gallery, request) if pending is None else None
        if pending is None and receipt is None:
            return False
        ids = None if which.item_ids is None else set(which.item_ids)
        if pending is not None and ids == set(pending.ids):
            return True
        if receipt is not None and ids is not None and is_receipt_of(self.turns.gallery, receipt, ids):
            return True
        raise ConflictError(
            f"request {request}: is there already, of other items or by a filter; see what became of it, or choose another name"
        )

    def _state(self, view: GalleryView, request: str) -> ErasureState:
        for each in view.erasures:
            if each.request == request:
                return _pending(each)
        state = self._done(request)
        if state is None:
            raise NotThereError(f"request {request[:100]!r}: no erasure of that name was asked for")
        return state

    def _done(self, request: str) -> ErasureState | None:
        try:
            checked_name(request, "request")  # it is part of a path
        except ConfigError:
            return None
        receipt = read_receipt(self.turns.gallery, request)
        if receipt is None:
            return None
        return ErasureState(request, receipt["items"], True, receipt["asked"], receipt["deadline"], receipt)


def _pending(erasure: Erasure) -> ErasureState:
    return ErasureState(erasure.request, len(erasure.ids), False, _when(erasure.asked), _when(erasure.deadline), None)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
