"""A gallery as it is searched: the segments of a generation and what the log says since, kept up to date by looking, never by being told.

A reader needs no lock and never writes. It sees what another process wrote at its next `refresh`, and a newer generation whole or not at
all. Where it lies is depot/'s; writing is gallery_writer.py's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reid_ray.errors import ConfigError, DataError
from reid_ray.gallery.buffer import Buffer
from reid_ray.gallery.config import NearestConfig
from reid_ray.gallery.depot.added_items import items_of_record
from reid_ray.gallery.depot.dead_rows import alive_rows
from reid_ray.gallery.depot.interface import Depot, depot_of
from reid_ray.gallery.depot.journal import LogRecord
from reid_ray.gallery.items import ID, Items, as_dicts, merged_schema
from reid_ray.gallery.manifest import Erasure, Manifest
from reid_ray.gallery.nearest.browsing import Listed, newest
from reid_ray.gallery.nearest.cursors import Page, page_after, search_digest
from reid_ray.gallery.nearest.feedback import moved_query
from reid_ray.gallery.nearest.hits import Found, PartSearch, Wish, checked_queries
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.id_lookup import id_hashes
from reid_ray.gallery.sealed.postings import add_counts, filterable, parsed_filter, value_counts
from reid_ray.gallery.sealed.segment import Segment
from reid_ray.gallery.shards.share import WHOLE, Position, Share

_TRIES = 20  # a generation that is swapped away while it is opened is looked for again


class GalleryView:
    """An open gallery; may be searched from several threads.

    Args:
        folder: the gallery's folder or address.
        depot: where it lies, if that is open already.
        share: the part of it that is opened; what the log deletes is heeded in every part.
        removed: called with the ids of every delete and erasure that is read from the log.
        device: a torch device, such as cuda:0, that holds the segments' vectors and compares them all; None: the CPU does, by `nearest`.

    Raises:
        DataError: no gallery is there, or a damaged one.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        depot: Depot | None = None,
        share: Share = WHOLE,
        removed: Callable[[list[str]], object] = lambda ids: None,
        device: str | None = None,
    ) -> None:
        self.folder, self._share, self._removed, self._device = folder, share, removed, device
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

    def search(
        self,
        query_QD: np.ndarray,
        k: int,
        *,
        where: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
        threshold: float | None = None,
        one_per: str | None = None,
        exact: bool = False,
    ) -> list[list[Found]]:
        """The best items of each query, best first; k distinct ones if there are as many that pass.

        Args:
            query_QD: Q unit vectors.
            k: how many, at least 1.
            where: a filter in its JSON form (postings.parsed_filter).
            without: ids that are not wanted.
            threshold: the least score.
            one_per: a column, such as person_id: only the best item of each of its values; items without a value stand for themselves.
            exact: compare every item that passes, whatever the gallery's kind.

        Raises:
            ConfigError: k below 1, or a filter or column that the gallery lacks.
            DataError: queries that are no unit vectors of its dimension.
        """
        query_QD = checked_queries(query_QD, k, self.manifest.dim)
        with self._lock:
            parts, generation, nearest = self.parts(), self.generation, self.manifest.config.nearest
            if one_per is not None and self.schema.get_field_index(one_per) < 0:
                raise ConfigError(f"one_per is {one_per}, but the gallery's columns are {', '.join(self.schema.names)}")
            wanted = parsed_filter(where, self.schema)
            passing = [part.passing(wanted) for part in parts]
            for mask, row_N in zip(passing, self._rows_of(list(without)), strict=True):
                mask[row_N[row_N >= 0]] = False
        search = PartSearch(parts, passing, Wish(k, threshold, one_per), NearestConfig() if exact else nearest, self._items, self._device)
        hits = search.hits(query_QD)
        return [[Found(generation, hit.item[ID], hit.score, hit.item) for hit in found] for found in hits]

    def page(self, query_D: np.ndarray, k: int, *, cursor: str | None = None, **options: Any) -> Page:
        """The first k hits of a query, or those after a page before.

        Pages stay apart while the gallery changes: no hit is on two of them, and none is left out that was there all the time. (Of equal
        scores that holds as long as the last hit of the page before is there.) The first pages are searched again for each further one.

        Args:
            query_D: a unit vector.
            k: hits a page.
            cursor: of the page before; None for the first one.
            options: of `search`; a cursor goes with the same ones.

        Raises:
            ConfigError: also a cursor that does not fit.
        """
        query_D = checked_queries(np.asarray(query_D)[None], k, self.manifest.dim)[0]
        digest = search_digest(query_D, options)
        return page_after(cursor, k, digest, self.generation, lambda fetched: self.search(query_D[None], fetched, **options)[0])

    def query_like(
        self, like: Sequence[str] = (), unlike: Sequence[str] = (), *, query_D: np.ndarray | None = None, unlike_weight: float = 0.5
    ) -> np.ndarray:
        """What to search for, by stored vectors: more like some items and less like others. A unit vector [D].

        Args:
            like: ids of items, whose mean is taken; with query_D also of that.
            unlike: ids of items that push away.
            query_D: of a text or a picture.
            unlike_weight: how strongly they do.

        Raises:
            DataError: an id that the gallery lacks, or nothing is left to search for.
        """
        return moved_query(query_D, self.vectors(like), self.vectors(unlike), unlike_weight=unlike_weight)

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """The columns of items, None for ids that the gallery lacks."""
        found: list[dict[str, Any] | None] = [None] * len(ids)
        for part, at, row in self.located(ids):
            found[at] = self._items(part, [row])[0]
        return found

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Stored vectors of items, float32 [N, D]: to search for more like them.

        Raises:
            DataError: an id that the gallery lacks.
        """
        found, is_there = self.vectors_there(ids)
        if not is_there.all():
            raise DataError(f"{self.folder}: holds no item {ids[int(np.argmin(is_there))]!r} (any more); search for another")
        return found

    def vectors_there(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Stored vectors of items, float32 [N, D], zeros for ids that the gallery lacks, and which it has, bool [N]."""
        found, is_there = np.zeros((len(ids), self.manifest.dim), np.float32), np.zeros(len(ids), np.bool_)
        for part, at, row in self.located(ids):
            found[at], is_there[at] = part.source.vectors[row], True
        return found, is_there

    def newest(self, k: int, *, where: Mapping[str, Any] | None = None, after: str | None = None) -> tuple[list[Listed], bool]:
        """The newest k items that pass, without a query; and whether the item `after`, which they come after, is known here.

        Raises:
            ConfigError: a filter of a column that the gallery lacks.
        """
        with self._lock:
            parts, wanted = self.parts(), parsed_filter(where, self.schema)
            rows = None if after is None else [int(row_N[0]) for row_N in self._rows_of([after])]
            page = newest(parts, wanted, k, rows)
            items = [self._items(parts[number], [row])[0] for number, row in page.places]
            return [Listed(self.generation, item[ID], item) for item in items], page.found

    def thumbnail(self, item_id: str) -> bytes | None:
        """The encoded picture of an item: empty if it has none, None if the gallery lacks the item."""
        for part, _, row in self.located([item_id]):
            return part.source.thumbnail(row)
        return None

    def facets(self, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> dict[str, dict[Any, int]]:
        """How many of the items that pass have each value of some columns; of one of very many values {None: how many have one}."""
        counts: dict[str, dict[Any, int]] = {column: {} for column in columns}
        with self._lock:
            wanted = parsed_filter(where, self.schema)
            for part in self.parts():
                passing, postings = part.passing(wanted), part.postings()
                for column in columns:
                    if column in postings:
                        add_counts(counts[column], value_counts(postings[column], passing))
        return counts

    def ids(self, where: Mapping[str, Any] | None = None) -> list[str]:
        """Ids of the items that pass a filter."""
        with self._lock:
            wanted = parsed_filter(where, self.schema)
            return [each for part in self.parts() for each in part.passing_ids(wanted)]

    def columns(self) -> list[str]:
        """Names of the items' columns."""
        return list(self.schema.names)

    def typed_columns(self) -> dict[str, str]:
        """The items' columns that a filter reads, and what they hold: text, number, whole number, time or truth value."""
        return filterable(self.schema)

    def parts(self) -> list[LivePart]:
        """Segments, oldest first, then the buffer."""
        return [*self._segments, self._buffer]

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
        hash_N = id_hashes(ids) if ids else np.zeros(0, np.uint64)
        return [part.source.rows_of(ids) if isinstance(part.source, Buffer) else part.source.rows_of(ids, hash_N) for part in self.parts()]

    def _items(self, part: LivePart, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Rows with every column of the gallery; what was added before a column was known has none of it."""
        return as_dicts(part.rows(), rows, self.schema.names)

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
