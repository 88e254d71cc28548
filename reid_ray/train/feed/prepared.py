"""The prepared data of a training run: Arrow files that every worker maps, and what was counted when they were written.

A worker opens them in milliseconds, shares their pages with its neighbours and reads any row by its number in constant time, which
Parquet cannot do without decoding a row group. The format is Arrow's own (IPC), which Hugging Face datasets keeps, too: its reader takes
random rows as fast, and has them on a local disk only, as this one has, for more dependencies. Lance reads rows from an object store, but
costs several times as much for each (benchmarks/row_files.py), at every step of every worker. Knows files and rows; not what they are for,
models or Ray.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.versions import check_json

SAMPLES, VALIDATION, PICTURES, FACTS = "samples.arrow", "validation.arrow", "pictures.arrow", "facts.json"
IDS = "ids.arrow"  # caption_id and image_id of each row of SAMPLES, for messages; read only when there is one to write
_MEMORY_SHARE = 0.5  # of the machine's memory: larger files are not read ahead of what is asked for
_NOWHERE = -1  # of a buffer that is empty or left out
ROWS = 65_536  # of texts and numbers in one record batch

# A row is one caption with its image; text and rewrites as written, person a dense number, picture a row of PICTURES, camera -1 if unknown,
# synthetic whether an editor made the picture.
PAIRS = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("rewrites", pa.list_(pa.string()), nullable=False),
        pa.field("person", pa.int64(), nullable=False),
        pa.field("picture", pa.int64(), nullable=False),
        pa.field("camera", pa.int64(), nullable=False),
        pa.field("synthetic", pa.bool_(), nullable=False),
    ]
)


class RowFile:
    """The rows of an Arrow file, or of a folder of them in the order of their names, by number. Bytes stay in the mapped files.

    A record batch is found by bisection and a row by its place there, whichever record batches the rows of one call lie in: a row costs
    the same in a file of any size. Arrow's own `take` costs some 25 us, and a piece of each column, for each record batch that is touched:
    of 4 M captions several times what the rows do. No column is ever joined into one array (17 M captions exceed the 2 GiB that one array
    of texts may hold). Pickled, it is its path: another process maps the file for itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        files = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
        self._ahead = sum(file.stat().st_size for file in files) <= _MEMORY_SHARE * _memory_bytes()
        self._files, self._maps = files, [_mapped(file, ahead=self._ahead) for file in files]
        self._readers = [pa.ipc.open_file(mapped) for mapped in self._maps]
        self._places = [(file, index) for file, reader in enumerate(self._readers) for index in range(reader.num_record_batches)]
        self._batches: dict[int, pa.RecordBatch] = {}
        self._memory = [_whole(mapped) for mapped in self._maps]
        rows = [0]
        places = [self._buffers(number, rows) for number in range(len(self._places))]
        self._starts, self._ends = np.cumsum(rows[:-1], dtype=np.int64), np.cumsum(rows[1:], dtype=np.int64)
        self._file_B = np.array([file for file, _ in self._places], np.int64)
        # Where each buffer of a column begins in its file, int64 [buffers, record batches].
        self._at = {name: np.array([place[name] for place in places], np.int64).T for name in (places[0] if places else ())}

    def __reduce__(self) -> tuple[type[RowFile], tuple[Path]]:
        return type(self), (self._path,)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, rows: np.ndarray) -> pa.Table:
        """The rows of these numbers, in this order and as often as they are named, as a table [len(rows)].

        Raises:
            IndexError: a number is negative or not below len(self).
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(int(rows.max() if rows.max() >= len(self) else rows.min()))
        if not len(rows):
            return self._readers[0].schema.empty_table()
        batch_R = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(self._file_B[batch_R], kind="stable")
        found = []
        for chosen in np.split(order, np.flatnonzero(np.diff(self._file_B[batch_R[order]])) + 1):
            batch_C = batch_R[chosen]
            file, row_C = self._file_B[batch_C[0]], rows[chosen] - self._starts[batch_C]
            gather, schema = _MappedColumns(self._memory[file]), self._readers[file].schema
            columns = [gather.rows(field.type, iter(self._at[field.name]), batch_C, row_C) for field in schema]
            found.append(pa.record_batch(columns, schema=schema))
        table = pa.Table.from_batches(found)
        if len(found) == 1:  # in the order asked for
            return table
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return table.combine_chunks().take(pa.array(back))

    def column(self, name: str) -> np.ndarray:
        """A column of numbers or booleans, whole."""
        parts = [self._batch(index).column(name).to_numpy(zero_copy_only=False) for index in range(len(self._ends))]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def lengths(self, name: str) -> np.ndarray:
        """How many members each row of a column of lists has, int64."""
        parts = [pc.list_value_length(self._batch(index).column(name)).to_numpy() for index in range(len(self._ends))]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its record batches in order, none of them kept."""
        for index in range(len(self._ends)):
            yield self._read(index)

    def _batch(self, index: int) -> pa.RecordBatch:
        batch = self._batches.get(index)
        if batch is None:  # to read one from the mapped file takes longer than a row does
            batch = self._batches[index] = self._read(index)
        return batch

    def _read(self, number: int) -> pa.RecordBatch:
        file, index = self._places[number]
        return self._readers[file].get_batch(index)

    def _buffers(self, number: int, rows: list[int]) -> dict[str, list[int]]:
        """Where the buffers of each column of a record batch begin in its file; its number of rows is added to `rows`.

        Raises:
            DataError: it is compressed.
        """
        memory, batch = self._memory[self._places[number][0]], self._read(number)
        rows.append(batch.num_rows)

        def place(buffer: pa.Buffer | None) -> int:
            if buffer is None or not buffer.size:
                return _NOWHERE
            if not 0 <= buffer.address - memory.address < memory.size:
                raise DataError(f"{self._files[self._places[number][0]]}: is compressed, which prepared rows never are; prepare them anew")
            return int(buffer.address - memory.address)

        return {name: [place(buffer) for buffer in batch.column(name).buffers()] for name in batch.schema.names}


class _MappedColumns:
    """Rows of columns of one file, from whichever of its record batches; what `take` gives, whose price grows with their number.

    Args:
        memory: the whole file.
    """

    def __init__(self, memory: pa.Buffer) -> None:
        self._memory, self._byte_F = memoryview(memory), np.frombuffer(memory, np.uint8)

    def rows(self, kind: pa.DataType, at: Iterator[np.ndarray], batch_R: np.ndarray, row_R: np.ndarray) -> pa.Array:
        """The rows `row_R` of the record batches `batch_R`, in this order.

        Args:
            kind: the column's type: of fixed width, string, binary, list or struct, and of these.
            at: where each of its buffers begins in the file, by record batch; in Arrow's order (Columnar Format, "Buffer Listing for
                Each Layout"), children after their parent. Those of `kind` are drawn.
            batch_R: int64 [R].
            row_R: int64 [R].

        Raises:
            TypeError: no file of ours has such a column.
            OverflowError: one array cannot hold that many bytes or members.
        """
        valid, count = self._valid(next(at)[batch_R], row_R), len(row_R)
        if pa.types.is_struct(kind):
            members = [self.rows(field.type, at, batch_R, row_R) for field in kind]
            return pa.Array.from_buffers(kind, count, [valid], children=members)
        if pa.types.is_list(kind):
            start_R, ends, size_R = self._spans(next(at)[batch_R], row_R)
            row_M = np.repeat(start_R - np.cumsum(size_R) + size_R, size_R) + np.arange(size_R.sum())
            return pa.Array.from_buffers(
                kind, count, [valid, ends], children=[self.rows(kind.value_type, at, np.repeat(batch_R, size_R), row_M)]
            )
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            start_R, ends, size_R = self._spans(next(at)[batch_R], row_R)
            return pa.Array.from_buffers(kind, count, [valid, ends, self._joined(start_R + next(at)[batch_R], size_R)])
        first_R = next(at)[batch_R]
        if pa.types.is_boolean(kind):
            return pa.Array.from_buffers(kind, count, [valid, _packed(self._bits(first_R, row_R))])
        if not pa.types.is_primitive(kind) and not pa.types.is_fixed_size_binary(kind):
            raise TypeError(f"rows of columns of {kind} are not read")
        width = kind.bit_width // 8
        return pa.Array.from_buffers(kind, count, [valid, pa.py_buffer(self._fixed(first_R + row_R * width, width))])

    def _joined(self, start_R: np.ndarray, size_R: np.ndarray) -> pa.Buffer:
        """`size_R` bytes from each `start_R` on; of rows that lie side by side, as when a file is gone through, at once."""
        end_R = start_R + size_R
        breaks = np.flatnonzero(start_R[1:] != end_R[:-1])
        starts, ends = start_R[np.append(0, breaks + 1)] if len(start_R) else start_R, np.append(end_R[breaks], end_R[-1:])
        parts = [self._memory[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return pa.py_buffer(b"".join(parts))

    def _fixed(self, first_R: np.ndarray, width: int) -> np.ndarray:
        """`width` bytes from each place on, uint8 [R, width]."""
        return self._byte_F[first_R[:, None] + np.arange(width)]

    def _bits(self, first_R: np.ndarray, row_R: np.ndarray) -> np.ndarray:
        return (self._byte_F[first_R + (row_R >> 3)] >> (row_R & 7).astype(np.uint8) & 1).astype(bool)

    def _valid(self, first_R: np.ndarray, row_R: np.ndarray) -> pa.Buffer | None:
        """Which rows are not null; a record batch without nulls need not say so."""
        told_R = first_R != _NOWHERE
        if not told_R.any():
            return None
        valid_R = np.ones(len(row_R), bool)
        valid_R[told_R] = self._bits(first_R[told_R], row_R[told_R])
        return _packed(valid_R)

    def _spans(self, first_R: np.ndarray, row_R: np.ndarray) -> tuple[np.ndarray, pa.Buffer, np.ndarray]:
        """(where each row's bytes or members begin in its record batch, the offsets of the rows put together, how many each row has)."""
        start_R, end_R = self._fixed(first_R + row_R * 4, 8).view(np.int32).astype(np.int64).T
        ends = np.concatenate([[0], np.cumsum(end_R - start_R)])
        if ends[-1] > np.iinfo(np.int32).max:
            raise OverflowError(f"{len(row_R)} rows of {ends[-1]} bytes or members do not fit into one array")
        return start_R, pa.py_buffer(ends.astype(np.int32)), end_R - start_R


def _packed(bits: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(bits, bitorder="little"))


def _whole(mapped: pa.NativeFile | pa.Buffer) -> pa.Buffer:
    """A mapped file as one buffer, none of it read."""
    if isinstance(mapped, pa.Buffer):
        return mapped
    mapped.seek(0)
    return pa.foreign_buffer(mapped.read_buffer(1).address, mapped.size(), base=mapped)


def _mapped(file: Path, *, ahead: bool) -> pa.NativeFile | pa.Buffer:
    """A file in memory. Read ahead, a batch comes whole when its first row is asked for, and the next rows are there; but of files
    that do not fit into memory most of that is dropped before it is used, and to open one reads all of it.
    """
    if ahead:
        return pa.memory_map(str(file))
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
    mapped.madvise(mmap.MADV_RANDOM)
    return pa.py_buffer(mapped)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def write_rows(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table]) -> int:
    """Write a file that RowFile reads, in record batches of at most ROWS rows. Returns the number of rows."""
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
            writer.write_table(table.cast(schema), max_chunksize=ROWS)
            rows += table.num_rows
    return rows


def read_prepared(folder: Path) -> dict[str, Any]:
    """What prepare_pairs, or prepare_held_out, wrote down of the data in `folder`.

    Raises:
        DataError: a newer version of this package prepared them.
    """
    prepared = dict(json.loads((folder / FACTS).read_text(encoding="utf-8")))
    check_json("prepared", prepared, origin=folder / FACTS)
    return prepared


def texts_of(pairs: RowFile) -> Iterator[str]:
    """Every text of SAMPLES: captions, then rewrites."""
    for batch in pairs.batches():
        yield from batch.column("text").to_pylist()
    for batch in pairs.batches():
        yield from pc.list_flatten(batch.column("rewrites")).to_pylist()
