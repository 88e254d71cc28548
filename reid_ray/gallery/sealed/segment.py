"""A segment: an immutable folder of items, sealed with the digest of each of its files and read through memory maps.

vectors.npy, twins.npy (which of them are equal), codes.npy with codes_scale.npy (8-bit codes of them), items.arrow (Arrow IPC), ids.npy
(id_lookup), thumbnails.bin with thumbnails.npy (where each begins), postings.arrow with postings.npy; and KIND.faiss, in place of codes,
where the gallery's kind asks for it. Files are written once, read-only, and never change: what is deleted is said elsewhere. Knows the
files of one folder.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.gallery.approximate.accelerator import INDEX_ENDING, Accelerator, accelerator_name, write_accelerator
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.items import ID, Items, in_schema, is_filterable
from reid_ray.gallery.sealed.arrays import mapped_array
from reid_ray.gallery.sealed.codes import Codes, write_codes
from reid_ray.gallery.sealed.device_vectors import DeviceVectors
from reid_ray.gallery.sealed.id_lookup import rows_of, sorted_lookup
from reid_ray.gallery.sealed.postings import Postings
from reid_ray.gallery.sealed.twins import NO_TWINS, Twins, twin_groups
from reid_ray.storage.files import sync
from reid_ray.terminal.own_lines import say

VECTORS, TWINS, CODES, SCALE, ITEMS, IDS, PICTURES, OFFSETS, VALUES, ROWS = (
    "vectors.npy",
    "twins.npy",
    "codes.npy",
    "codes_scale.npy",
    "items.arrow",
    "ids.npy",
    "thumbnails.bin",
    "thumbnails.npy",
    "postings.arrow",
    "postings.npy",
)
_ROWS_PER_BATCH = 65_536
_BYTES_AT_ONCE = 8 << 20
_REMEDY = "restore it from a snapshot or a copy"


@dataclass(frozen=True)
class SegmentFacts:
    """What a manifest says of a segment: its folder's name, how many items, and (size, SHA-256) of each file."""

    name: str
    rows: int
    files: dict[str, tuple[int, str]]


def write_segment(folder: Path, batches: Iterable[Items], *, rows: int, dim: int, config: GalleryConfig, schema: pa.Schema) -> SegmentFacts:
    """Write and sync a segment into an empty folder; its name is on the disk when the caller has synced the folder above.

    Vectors and pictures go to the disk batch by batch and are never held whole; the other columns are.

    Args:
        folder: an empty folder.
        batches: the items, in order.
        rows: how many they are.
        dim: of the vectors.
        config: how vectors are stored and indexed.
        schema: the gallery's columns.
    """
    tables, lengths, at, dtype = [], [np.zeros(1, np.uint64)], 0, config.dtype
    vectors = np.lib.format.open_memmap(folder / VECTORS, mode="w+", dtype=dtype, shape=(rows, dim)) if rows else np.zeros((0, dim), dtype)
    with (folder / PICTURES).open("wb") as pictures:
        for batch in batches:
            vectors[at : at + len(batch)] = batch.vectors
            at += len(batch)
            tables.append(in_schema(batch.rows, schema))
            lengths.append(pc.binary_length(batch.thumbnails).to_numpy().astype(np.uint64))
            pictures.writelines(batch.thumbnails.to_pylist())
    if rows:
        assert isinstance(vectors, np.memmap)
        vectors.flush()
    else:
        np.save(folder / VECTORS, vectors)
    group_N = twin_groups(vectors)
    np.save(folder / TWINS, group_N)
    if config.nearest.kind != "flat" and rows >= config.nearest.accelerate_rows:
        write_accelerator(folder / accelerator_name(config.nearest.kind), vectors, Twins.read(group_N), config.nearest)
    elif rows:
        write_codes(folder / CODES, folder / SCALE, vectors)
    table = pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()
    _write_arrow(folder / ITEMS, table)
    np.save(folder / IDS, sorted_lookup(table[ID].to_pylist()))
    np.save(folder / OFFSETS, np.cumsum(np.concatenate(lengths)))
    _write_postings(folder, table)
    for path in folder.iterdir():
        sync(path)
        path.chmod(0o444)
    sync(folder)
    files = {name: (size, digest) for name, size, digest in map(_measured, sorted(folder.iterdir()))}
    return SegmentFacts(folder.name, rows, files)


@dataclass
class Segment:
    """An open segment.

    vectors: float32 or float16 [N, D], memory-mapped.
    rows: its items' columns, memory-mapped.
    codes: of its vectors; None where an index names candidates, and in segments of older versions.
    """

    folder: Path
    facts: SegmentFacts
    vectors: np.ndarray
    rows: pa.Table
    postings: dict[str, Postings]
    codes: Codes | None
    _group_N: np.ndarray = field(repr=False)
    _lookup: np.ndarray = field(repr=False)
    _starts: np.ndarray = field(repr=False)
    _pictures: int = field(repr=False)
    _accelerators: dict[str, Accelerator | None] = field(default_factory=dict, repr=False)
    _on_devices: dict[str, DeviceVectors | None] = field(default_factory=dict, repr=False)
    _reading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, folder: Path, facts: SegmentFacts) -> Segment:
        """Map a segment's files; sizes and counts are checked here, digests by `verify`.

        Raises:
            DataError: a file is missing, of another size, or does not fit the others; names it.
            FileNotFoundError: the folder is gone: a newer generation does without it.
        """
        if not folder.is_dir():
            raise FileNotFoundError(folder)
        for name, (size, _) in facts.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise DataError(f"{path}: is missing or not of the {size} bytes that it was sealed with; {_REMEDY}")
        try:
            vectors = mapped_array(folder / VECTORS)
            group_N = mapped_array(folder / TWINS) if TWINS in facts.files else NO_TWINS.group_N  # format 1 does not tell
            codes = Codes.read(mapped_array(folder / CODES), mapped_array(folder / SCALE)) if CODES in facts.files else None
            rows = _map_arrow(folder / ITEMS)
            lookup = mapped_array(folder / IDS)
            starts = mapped_array(folder / OFFSETS)
            postings = _open_postings(folder)
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise DataError(f"{folder}: is no readable segment ({error}); {_REMEDY}") from None
        counts = {VECTORS: len(vectors), ITEMS: rows.num_rows, IDS: len(lookup), OFFSETS: len(starts) - 1}
        if len(group_N):
            counts[TWINS] = len(group_N)
        if codes is not None:
            counts[CODES] = len(codes.code_ND) if codes.code_ND.shape == vectors.shape else -1
        for name, count in counts.items():
            if count != facts.rows:
                raise DataError(f"{folder / name}: holds {count} items, but the segment was sealed with {facts.rows}; {_REMEDY}")
        pictures = os.open(folder / PICTURES, os.O_RDONLY | os.O_CLOEXEC)
        return cls(folder, facts, vectors, rows, postings, codes, group_N, lookup, starts, pictures)

    def __len__(self) -> int:
        return self.facts.rows

    @cached_property
    def twins(self) -> Twins:
        """Which of the vectors are equal."""
        return Twins.read(self._group_N)

    @property
    def lacks_codes(self) -> bool:
        """Whether it was written before segments without an index had codes."""
        return self.codes is None and len(self) > 0 and not any(name.endswith(INDEX_ENDING) for name in self.facts.files)

    @property
    def lookup(self) -> np.ndarray:
        """Where its ids lie: (hash, row), by hash, memory-mapped."""
        return self._lookup

    def accelerator(self, kind: str) -> Accelerator | None:
        """What names candidates of a search; None where the segment has no such index, or is gone from the disk meanwhile.

        It is read once, when it is first asked for.

        Raises:
            DataError: it cannot be read, or does not fit the vectors.
        """
        with self._reading:
            if kind not in self._accelerators:
                self._accelerators[kind] = None
                if accelerator_name(kind) in self.facts.files:
                    with suppress(FileNotFoundError):  # a newer generation has the items elsewhere; until it is opened: exactly
                        self._accelerators[kind] = Accelerator(self.folder / accelerator_name(kind), len(self), self.twins)
            return self._accelerators[kind]

    def on_device(self, device: str) -> DeviceVectors | None:
        """Its vectors on a torch device, brought there when they are first asked for; None where they do not fit, which is said once."""
        import torch

        with self._reading:
            if device not in self._on_devices:
                self._on_devices[device] = None
                try:
                    self._on_devices[device] = DeviceVectors(self.vectors, device)
                except torch.OutOfMemoryError:
                    say(f"gallery: the {len(self):,} vectors of {self.folder} do not fit on {device}; the CPU searches them")
            return self._on_devices[device]

    def rows_of(self, ids: list[str], hash_N: np.ndarray) -> np.ndarray:
        """Row of each id, -1 where there is none."""
        return rows_of(self._lookup, ids, hash_N, self.id_at)

    def id_at(self, row: int) -> str:
        """The id of a row."""
        found: str = self.rows[ID][row].as_py()
        return found

    def thumbnail(self, row: int) -> bytes:
        """The encoded picture of a row; empty where there is none."""
        start, stop = int(self._starts[row]), int(self._starts[row + 1])
        return os.pread(self._pictures, stop - start, start)

    def items(self, rows: np.ndarray) -> Items:
        """Some of the items, in memory."""
        return Items(self.vectors[rows].astype(np.float32), self.rows.take(pa.array(rows)).combine_chunks(), self._thumbnails(rows))

    def _thumbnails(self, rows: np.ndarray) -> pa.LargeBinaryArray:
        """The encoded pictures of some rows: one read for each run of pictures that lie one after the other, at most a few MB."""
        start_N, stop_N = self._starts[rows].astype(np.int64), self._starts[rows + 1].astype(np.int64)
        parts, first = [], 0
        for at in range(1, len(rows) + 1):
            if at == len(rows) or start_N[at] != stop_N[at - 1] or stop_N[at] - start_N[first] > _BYTES_AT_ONCE:
                parts.append(os.pread(self._pictures, int(stop_N[at - 1] - start_N[first]), int(start_N[first])))
                first = at
        offset_N1 = np.concatenate([[0], np.cumsum(stop_N - start_N)])
        buffers = [None, pa.py_buffer(offset_N1.astype(np.int64)), pa.py_buffer(b"".join(parts))]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(rows), buffers)

    def faults(self) -> list[str]:
        """What is wrong with its files, by their digests and by what is in them: a sentence each, none if it is whole."""
        found = []
        for name, (size, digest) in self.facts.files.items():
            if _measured(self.folder / name)[1:] != (size, digest):
                found.append(f"{self.folder / name}: is not the file that was sealed; {_REMEDY}")
        for start in range(0, len(self), _ROWS_PER_BATCH):
            vector_BD = self.vectors[start : start + _ROWS_PER_BATCH].astype(np.float32)
            norm_B = np.linalg.norm(vector_BD, axis=1)
            if wrong := int(np.count_nonzero(~(np.abs(norm_B - 1) <= 2e-3))):
                found.append(
                    f"{self.folder / VECTORS}: {wrong} of rows {start} to {start + len(norm_B) - 1} are no unit vectors; {_REMEDY}"
                )
            if self.codes is not None and not self.codes.worst_error(start, vector_BD) <= self.codes.error:
                found.append(f"{self.folder / CODES}: does not say of rows from {start} on what {VECTORS} does; {_REMEDY}")
        return found

    def close(self) -> None:
        """Give the file of pictures back; maps go with the object."""
        if self._pictures >= 0:
            os.close(self._pictures)
            self._pictures = -1

    def __del__(self) -> None:
        self.close()


def _measured(path: Path) -> tuple[str, int, str]:
    with path.open("rb") as file:
        return path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _write_arrow(path: Path, rows: pa.Table) -> None:
    with pa.OSFile(os.fspath(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=_ROWS_PER_BATCH)


def _map_arrow(path: Path) -> pa.Table:
    with pa.memory_map(os.fspath(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _write_postings(folder: Path, rows: pa.Table) -> None:
    """Row numbers of all columns' posting lists in one array; their values in streams, one after the other, each of its column's type."""
    numbers, at = [np.zeros(0, np.uint32)], 0
    with pa.OSFile(os.fspath(folder / VALUES), "wb") as sink:
        for each in rows.schema:
            if not is_filterable(each) or each.name == ID:
                continue
            postings = Postings.of(rows[each.name].combine_chunks())
            schema = pa.schema(
                [pa.field("value", postings.values.type), pa.field("start", pa.int64())], metadata={"column": each.name, "at": str(at)}
            )
            with pa.ipc.new_stream(sink, schema) as writer:
                writer.write_batch(pa.record_batch([postings.values, pa.array(postings.start_V1[:-1])], schema=schema))
            numbers.append(postings.row_N)
            at += len(postings.row_N)
    np.save(folder / ROWS, np.concatenate(numbers))


def _open_postings(folder: Path) -> dict[str, Postings]:
    row_N = mapped_array(folder / ROWS)
    found, tables = {}, []
    with pa.memory_map(os.fspath(folder / VALUES)) as source:
        while source.tell() < source.size():
            tables.append(pa.ipc.open_stream(source).read_all())
    starts = [int(table.schema.metadata[b"at"]) for table in tables]
    for table, start, stop in zip(tables, starts, [*starts[1:], len(row_N)], strict=True):
        name = table.schema.metadata[b"column"].decode()
        values = table["value"].combine_chunks() if table.num_rows else pa.array([], table.schema.field("value").type)
        start_V1 = np.append(table["start"].to_numpy(), stop - start).astype(np.int64)
        found[name] = Postings(values, start_V1, row_N[start:stop])
    return found
