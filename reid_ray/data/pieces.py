"""Input splits (shards) of an image source: each a few dozen images, read where it is needed, as rows of SOURCED.

Knows how a piece is read and by what an image's state is told without reading it; not how a source is listed (sources.py), nor what an
image shows. A row whose bytes cannot be read has none, and says why in UNREAD: it fails, with that reason, in whatever job decodes it.
Files are fetched and judged by the code of ingest (fetch.py).
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import SyntheticConfig
from reid_ray.data.config import LoadConfig
from reid_ray.data.fetch import Loaded, load_all
from reid_ray.data.image_records import ImageRecord, Skipped
from reid_ray.data.images import BadImageError, image_size
from reid_ray.data.labels.label_columns import LABELS
from reid_ray.data.labels.labelled_record import labelled
from reid_ray.errors import DataError
from reid_ray.own_columns import NOTHING_OWN, own_of, with_own
from reid_ray.records import IMAGES, conform, table_of
from reid_ray.storage import sha256_of
from reid_ray.storage.file_systems import State, Store, open_file_store
from reid_ray.storage.regular_files import printable
from reid_ray.storage.table_files import TableFile

# Beside IMAGES: why a row has no bytes, "reason: detail" with the reasons of fetch.load_all; null where it has them.
UNREAD = pa.field("unread", pa.string())
SOURCED = IMAGES.append(UNREAD)
# A person crop is a few kilobytes; a "picture" beyond this is not worth a worker's memory and becomes an unreadable row.
MAX_FILE_BYTES = 256 << 20
SETTLED_S = 2.0  # a file may change twice within one tick of its file system's clock
TABLE_ROWS = 32  # small tables keep a pipeline streaming and its memory bounded
_TABLE_BYTES = 8 << 20  # no further image joins a table that holds so much
_LOAD = LoadConfig(processes=0)  # who reads a piece is one of several processes already
_END = "\0"  # of a name among others

Size = tuple[int | None, int | None]


@dataclass(frozen=True)
class FilePiece:
    """Some files of a folder.

    A listing holds millions of files: their names lie in one string, their states in one array.

    Args:
        store: the folder.
        packed: the files' names, as pack_names has them.
        max_pixels: see ImagesConfig.
        listed: (size, time of change) of each file by turns as they were when it was listed, -1 where that is not known; None if they
            were not asked for.
        labels: what is known of each file (labels/path_and_table.py), LABELS and the own columns; None: nothing.
    """

    store: Store
    packed: bytes
    max_pixels: int
    listed: array[int] | None = None
    labels: pa.Table | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The files, relative to the folder."""
        return tuple(unpack_names(self.packed))

    @property
    def rows(self) -> int:
        """How many images it gives."""
        return self.packed.count(_END.encode())

    def places(self, session: str) -> list[str]:
        """See ImageListing.places."""
        names = self.names
        states = self.store.states(names) if self.listed is None else _unpacked(self.listed)
        places = [_place(self.store.locate(name), state, session) for name, state in zip(names, states, strict=True)]
        if self.labels is None:
            return places
        return [f"{place} {tuple(told.values())}" for place, told in zip(places, self.labels.to_pylist(), strict=True)]

    def renewed(self) -> Self:
        """The piece with its files' states as they are now."""
        return replace(self, listed=packed_states(self.store.states(self.names)))

    def tables(self, only: pa.Array | None = None) -> Iterator[pa.Table]:
        """Its images as small SOURCED tables; if `only` is given, those of these image_ids, and no other file is opened."""
        dataset = printable(self.store.root.rpartition("/")[2])
        wanted = None if only is None else frozenset(only.to_pylist())
        told = [None] * self.rows if self.labels is None else self.labels.to_pylist()
        both = ((name, known) for name, known in zip(self.names, told, strict=True) if wanted is None or printable(name) in wanted)
        records = (labelled(self.store, name, dataset, known) for name, known in both)
        schema = SOURCED if self.labels is None else with_own(SOURCED, own_of(self.labels.schema, LABELS))
        for some in _small(_loaded(records, self.max_pixels, remote=not self.store.is_local)):
            yield table_of(schema, [_row(each) for each in some])


@dataclass(frozen=True)
class SyntheticPiece:
    """Some images of synthetic people."""

    config: SyntheticConfig
    ranges: tuple[tuple[int, int], ...]  # of image numbers: start, stop

    @property
    def rows(self) -> int:
        """How many images it gives."""
        return sum(stop - start for start, stop in self.ranges)

    def places(self, session: str) -> list[str]:
        """See ImageListing.places."""
        # Another version of this package may draw other people from the same numbers.
        made_by = f"{session} synthetic {self.config.model_dump_json()}"
        return [f"{made_by} {number}" for start, stop in self.ranges for number in range(start, stop)]

    def renewed(self) -> Self:
        """Itself: it does not change."""
        return self

    def tables(self, only: pa.Array | None = None) -> Iterator[pa.Table]:
        """Its images as a SOURCED table; if `only` is given, those of these image_ids."""
        from reid_ray.data.synthetic.people import SyntheticPeople

        people = SyntheticPeople(self.config)
        yield _with_unread(_only(pa.concat_tables([people.image_table(start, stop) for start, stop in self.ranges]), only), {})


@dataclass(frozen=True)
class TablePiece:
    """The first `rows` rows of a split, or of all splits, in a row group of a Parquet file."""

    file: TableFile
    row_group: int
    rows: int
    split: str | None
    max_pixels: int
    inline: bool = True  # every row holds its bytes; else they lie in files of their own
    own: pa.Schema = NOTHING_OWN  # columns beside those of IMAGES that are carried
    cameras: Mapping[str, int] | None = None  # numbers of the cameras' names, where the table has no camera_id

    def places(self, session: str) -> list[str]:
        """See ImageListing.places."""
        table = _place(str(self.file), self.file.state(), session) if self.inline else f"{session} {self.file}"
        return [f"{table} {self.row_group} {self.split} {row}" for row in range(self.rows)]

    def renewed(self) -> Self:
        """The piece with its file's state as it is now."""
        return replace(self, file=replace(self.file, listed=self.file.store.state(self.file.name)))

    def tables(self, only: pa.Array | None = None) -> Iterator[pa.Table]:
        """Its images as small SOURCED tables; if `only` is given, those of these image_ids, and no other's file is opened."""
        left = self.rows
        with self.file.open() as parquet:
            schema = with_own(IMAGES, self.own)
            present = [name for name in schema.names if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(batch_size=TABLE_ROWS, row_groups=[self.row_group], columns=present):
                table = self._numbered(conform(pa.Table.from_batches([batch]), schema, origin=str(self.file)))
                if self.split is not None:
                    table = table.filter(pc.equal(table["split"], self.split))
                table = table.slice(0, left)
                left -= table.num_rows
                wanted = _only(table, only)
                if wanted.num_rows:
                    yield _with_bytes(wanted, self.file, self.max_pixels)
                if not left:
                    return

    def _numbered(self, table: pa.Table) -> pa.Table:
        if self.cameras is None:
            return table
        numbers = [self.cameras.get(name) for name in table["camera"].to_pylist()]
        at = table.column_names.index("camera_id")
        return table.set_column(at, table.schema.field(at), pa.array(numbers, pa.int32()))


Piece = FilePiece | SyntheticPiece | TablePiece


def pack_names(names: Iterable[str]) -> bytes:
    """File names one after the other, each with the byte at its end that no file's name can hold."""
    return "".join(f"{name}{_END}" for name in names).encode("utf-8", "surrogateescape")


def unpack_names(packed: bytes | bytearray) -> list[str]:
    """The other way round."""
    return packed.decode("utf-8", "surrogateescape").split(_END)[:-1]


def packed_states(states: Iterable[State | None]) -> array[int]:
    """States in 16 bytes each: millions of them are held."""
    return array("q", (number for state in states for number in (state or (-1, -1))))


def _unpacked(states: array[int]) -> list[State | None]:
    return [None if size < 0 else (size, changed) for size, changed in zip(states[::2], states[1::2], strict=True)]


def _place(location: str, state: State | None, session: str) -> str:
    if state is None:
        return f"{session} {printable(location)}"
    size, changed = state
    recent = time.time() - changed / 1e9 < SETTLED_S
    return f"{session if recent else 'file'} {printable(location)} {size} {changed}"


def _loaded(records: Iterable[ImageRecord | Skipped], max_pixels: int, *, remote: bool) -> Iterator[Loaded[Size] | Skipped]:
    return load_all(records, partial(_size, max_pixels=max_pixels), _LOAD, remote=remote, max_bytes=MAX_FILE_BYTES)


def _size(data: bytes, *, max_pixels: int) -> Size:
    """As the header says; (None, None) for an image that whoever decodes it will refuse."""
    try:
        return image_size(data, max_pixels=max_pixels)
    except BadImageError:
        return None, None


def _small(rows: Iterable[Loaded[Size] | Skipped]) -> Iterator[list[Loaded[Size] | Skipped]]:
    """Rows as they come, in lists of bounded size."""
    some: list[Loaded[Size] | Skipped] = []
    held = 0
    for row in rows:
        some.append(row)
        held += len(row.data) if isinstance(row, Loaded) else 0
        if len(some) == TABLE_ROWS or held >= _TABLE_BYTES:
            yield some
            some, held = [], 0
    if some:
        yield some


def _row(each: Loaded[Size] | Skipped) -> dict[str, Any]:
    record = each if isinstance(each, Skipped) else each.record
    who = {"image_id": record.image_id, "path": printable(record.path) if record.path else None, "dataset": record.dataset}
    known = {"split": record.split, "person_id": record.person_id, "camera_id": record.camera_id}
    return {**who, **known, **(record.own if isinstance(record, ImageRecord) else {}), **_content(each)}


def _content(each: Loaded[Size] | Skipped) -> dict[str, Any]:
    if isinstance(each, Skipped):
        return {UNREAD.name: printable(f"{each.reason}: {each.detail}")}
    width, height = each.found
    return {"image": each.data, "image_sha256": each.sha256, "width": width, "height": height}


def _with_bytes(table: pa.Table, file: TableFile, max_pixels: int) -> pa.Table:
    """Rows that keep only a path get their bytes (a relative path is relative to the Parquet file's folder)."""
    if not table["image"].null_count and not table["image_sha256"].null_count:
        return _with_unread(table, {})
    rows = table.to_pylist()
    unread: dict[int, str] = {}
    by_path = [(at, record) for at, row in enumerate(rows) if row["image"] is None for record in _of_path(at, row, file, unread)]
    remote = any(record.store is not None and not record.store.is_local for _, record in by_path)
    loaded = _loaded((record for _, record in by_path), max_pixels, remote=remote)
    for (at, _), each in zip(by_path, loaded, strict=True):
        content = _content(each)
        if UNREAD.name in content:
            unread[at] = content[UNREAD.name]
        else:
            rows[at].update(content)
    for row in rows:
        if row["image"] is not None and row["image_sha256"] is None:
            row["image_sha256"] = sha256_of(row["image"])
    return _with_unread(table_of(table.schema, rows), unread)


def _of_path(at: int, row: dict[str, Any], file: TableFile, unread: dict[int, str]) -> Sequence[ImageRecord]:
    """The record of a row that keeps its image by path; a path that leads nowhere is noted in `unread`."""
    if row["path"] is None:
        return (ImageRecord(row["image_id"], ""),)
    try:
        store, name = open_file_store(file.store.locate_beside(file.name, row["path"]))
    except DataError as error:
        unread[at] = f"unreadable_file: {error}"
        return ()
    return (ImageRecord(row["image_id"], "", store, name),)


def _only(table: pa.Table, image_ids: pa.Array | None) -> pa.Table:
    return table if image_ids is None else table.filter(pc.is_in(table["image_id"], image_ids))


def _with_unread(table: pa.Table, unread: dict[int, str]) -> pa.Table:
    return table.add_column(len(IMAGES), UNREAD, pa.array([unread.get(row) for row in range(table.num_rows)], UNREAD.type))
