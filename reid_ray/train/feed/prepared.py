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

from reid_ray.versions import check_json

SAMPLES, VALIDATION, PICTURES, FACTS = "samples.arrow", "validation.arrow", "pictures.arrow", "facts.json"
IDS = "ids.arrow"  # caption_id and image_id of each row of SAMPLES, for messages; read only when there is one to write
_MEMORY_SHARE = 0.5  # of the machine's memory: larger files are not read ahead of what is asked for
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

    A record batch is found by bisection and its rows by their offsets, so that a row costs the same in a file of any size, and no column
    is ever joined into one array (17 M captions exceed the 2 GiB that one array of texts may hold). Pickled, it is its path: another
    process maps the file for itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        files = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
        self._ahead = sum(file.stat().st_size for file in files) <= _MEMORY_SHARE * _memory_bytes()
        self._files, self._maps = files, [_mapped(file, ahead=self._ahead) for file in files]
        self._readers = [pa.ipc.open_file(mapped) for mapped in self._maps]
        self._places = [(file, index) for file, reader in enumerate(self._readers) for index in range(reader.num_record_batches)]
        self._batches: dict[int, pa.RecordBatch] = {}
        self._ends = np.cumsum([self._read(number).num_rows for number in range(len(self._places))], dtype=np.int64)

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
        batch_R = np.searchsorted(self._ends, rows, side="right")
        order = np.argsort(batch_R, kind="stable")
        found = []
        for chosen in np.split(order, np.flatnonzero(np.diff(batch_R[order])) + 1):
            if len(chosen):
                number = int(batch_R[chosen[0]])
                start = int(self._ends[number - 1]) if number else 0
                found.append(self._batch(number).take(pa.array(rows[chosen] - start)))
        if not found:
            return self._readers[0].schema.empty_table()
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.Table.from_batches(found).combine_chunks().take(pa.array(back))

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
