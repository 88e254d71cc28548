"""Write-ahead log (the ledger) of a run: each finished row is durable at once and found again by its key after any crash.

Knows files, keys and locks; not what a row says: captions, or whatever a RowForm describes. It lies in a hidden folder beside the output
(.NAME.ledger), which must be on storage that all nodes see, as the output is; of an output at an object store in the folder .ledger/ below
its address, as objects:

    rows/*.parquet      Its rows (LEDGER). An actor writes a block per group (hidden name, fsync, rename); the driver merges them to parts.
    images/*.parquet    DIGEST_CACHE rows: which content lay where when it was last read, so that an unchanged file need not be read again.
    format.json         the number of all this layout (reid_ray.versions).
    lock, owner         one driver at a time (flock); `owner` is a fencing token: actors of a dead driver find another one there and stop.

Rows are never changed or removed: those of another prompt, template, model or sampling have other keys, stay out of the output, and
are there again when the configuration returns. Ray Data 2.60 has checkpoints of its own, and they are not used here: they know a row
by one id column, so that a row that failed counts as done for good and a caption of an older prompt passes for one of the new; they
ask for a plan that starts with a read_* of Ray's own and ends in a write; and they would take a process and 1 GiB to tell which rows
are done.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.caption.ledger.ledger_files import FolderFiles, LedgerFiles, columns_of, read_ledger_file
from reid_ray.caption.ledger.object_files import ObjectFiles
from reid_ray.caption.ledger.row_keys import KEY_BYTES
from reid_ray.caption.rows import STAGED
from reid_ray.config.called import called
from reid_ray.data.images import DAMAGE
from reid_ray.errors import DataError
from reid_ray.records import IDENTITY_COLUMNS, IMAGES, table_of
from reid_ray.storage import write_json
from reid_ray.storage.object_store.object_client import ObjectFolder, is_store_address
from reid_ray.storage.object_store.store_place import LEDGER_FOLDER
from reid_ray.versions import check_json, number_of, numbered

KEYS = np.dtype(f"S{KEY_BYTES}")
LEDGER = pa.schema(
    [
        *STAGED,
        pa.field("key", pa.binary(KEY_BYTES), nullable=False),  # see row_keys.py
        pa.field("run", pa.string(), nullable=False),  # which run of the driver made the row
        pa.field("made", pa.float64(), nullable=False),  # when, seconds since 1970
    ]
)
DIGEST_CACHE = pa.schema(
    [
        pa.field("place", pa.binary(KEY_BYTES), nullable=False),  # digest of where an image lies, its size and its time of change
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string()),  # null: could not be read
        *[IMAGES.field(name) for name in IDENTITY_COLUMNS],
    ]
)
ROWS, _IMAGES = "rows", "images"
FORMAT = "format.json"
QUARANTINED = "quarantined"  # reason code of a row that ended its engine
_PART_BYTES = 64 << 20  # a part of at least this size is not merged again
_READERS = 16  # files that are read side by side: at a store the work is waiting


@dataclass(frozen=True)
class RowForm:
    """What the rows of a ledger look like.

    schema: their columns; key, run, made, status, reason and tries, as LEDGER has them, are among them.
    name: the column by which actors and the account of attempts name a row.
    """

    schema: pa.Schema
    name: str

    def table(self, rows: Sequence[Mapping[str, Any]], run: str) -> pa.Table:
        """Rows that have their keys already, as rows of a ledger that are made now."""
        now = time.time()
        return table_of(self.schema, [{**row, "run": run, "made": now} for row in rows])


CAPTION_ROWS = RowForm(LEDGER, "caption_id")


@dataclass(frozen=True)
class Ledger:
    """A ledger as one run sees it, wherever its files lie. Small, and safe to send to actors."""

    files: LedgerFiles
    run: str
    form: RowForm = CAPTION_ROWS

    @property
    def folder(self) -> Path:
        """Where the ledger lies, if that is a folder."""
        return Path(self.files.location)

    def owned(self) -> bool:
        """Whether this run still is the one that may write: the fencing token is its own."""
        return self.files.owner() == self.run

    def blocks_of(self, writer: str) -> pa.Table:
        """The rows of the blocks whose names begin with a writer's; those that were merged since are not found."""
        mine = [file.location for file in self.files.found(ROWS) if f"/block-{writer}-" in file.location]
        schema = self.form.schema
        return pa.concat_tables([schema.empty_table(), *(read_ledger_file(location, schema=schema) for location in mine)])

    def commit(self, name: str, table: pa.Table) -> None:
        """Write a block of rows; once this returns, they outlive every process.

        Raises:
            DataError: another run has taken the ledger over.
        """
        self._check_owned()
        self.files.write(_block(name), table.cast(self.form.schema))

    def commit_digests(self, table: pa.Table) -> None:
        """Add to the digest cache which content was found where (DIGEST_CACHE rows)."""
        self._check_owned()
        self.files.write(f"{_IMAGES}/block-{uuid.uuid4().hex}.parquet", table.cast(DIGEST_CACHE))

    def row_files(self) -> list[str]:
        """Where every file of rows can be opened (read_ledger_file), the oldest kind of name first."""
        return [file.location for file in self.files.found(ROWS)]

    def digest_files(self) -> list[str]:
        """Where every file of the digest cache can be opened."""
        return [file.location for file in self.files.found(_IMAGES)]

    def compact(self, *, keep: frozenset[str] = frozenset(), older_than_s: float = 0.0) -> None:
        """Compaction: merge small files into large ones, so that a million batches do not leave a million files.

        A driver that dies between the new name and the old ones' removal leaves rows twice; readers take one row per key.

        Args:
            keep: files that somebody may be reading.
            older_than_s: younger ones stay: an actor that does its batch over looks for its block by name.
        """
        youngest = time.time() - older_than_s
        for folder, schema in ((ROWS, self.form.schema), (_IMAGES, DIGEST_CACHE)):
            merged: list[str] = []
            size = 0
            for file in self.files.found(folder):
                if file.location in keep or file.size >= _PART_BYTES or file.changed > youngest:
                    continue
                merged.append(file.location)
                size += file.size
                if size >= _PART_BYTES:
                    self._merge(merged, folder, schema)
                    merged, size = [], 0
            self._merge(merged, folder, schema)

    def _merge(self, locations: Sequence[str], folder: str, schema: pa.Schema) -> None:
        if len(locations) < 2:
            return
        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(partial(read_ledger_file, schema=schema), locations))
        self.files.write(f"{folder}/part-{uuid.uuid4().hex}.parquet", pa.concat_tables(tables))
        self.files.remove(locations)

    def _check_owned(self) -> None:
        if not self.owned():
            raise DataError(f"{self.files.location}: another run writes here now; this one's driver has ended")


@contextmanager
def open_ledger(output: str | Path, form: RowForm = CAPTION_ROWS) -> Iterator[Ledger]:
    """The ledger of an output, held against every other driver until the block ends or the process dies.

    Args:
        output: its folder; or its address, whose lease is held.
        form: of its rows.

    Raises:
        DataError: another run of this output is alive, or a newer version of this package, or another kind of job, wrote its ledger.
    """
    if is_store_address(str(output)):
        with _open_at_store(str(output), form) as ledger:
            yield ledger
        return
    output = Path(output).expanduser().resolve()
    folder = output.parent / f".{output.name}.ledger"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # captions of people, before anybody has decided who may read them
    for name in (ROWS, _IMAGES):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(folder / "lock")  # gone if the run before has just deleted its ledger
        except OSError:
            raise DataError(
                f"{output}: another run writes this output now; wait for its end, or choose another {called('output.path')}"
            ) from None
        if ledger_format(folder) < number_of("ledger"):  # its rows are read as they are, and those to come are of today's format
            write_json(folder / FORMAT, numbered("ledger"))
        files = FolderFiles(folder)
        ledger = Ledger(files, uuid.uuid4().hex, form)
        _refuse_other_rows(ledger)
        files.take(ledger.run)
        shutil.rmtree(folder / "attempts", ignore_errors=True)  # what an older version kept
        for name in (".", ROWS, _IMAGES):
            for hidden in (folder / name).glob(".*"):
                hidden.unlink(missing_ok=True)
        try:
            yield ledger
        finally:
            if not ledger.row_files() and not ledger.digest_files():  # nothing was done, so there is nothing to go on from
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _open_at_store(address: str, form: RowForm) -> Iterator[Ledger]:
    files = ObjectFiles(ObjectFolder(address).child(LEDGER_FOLDER))
    if files.format() < number_of("ledger"):
        files.number()
    ledger = Ledger(files, uuid.uuid4().hex, form)
    _refuse_other_rows(ledger)
    files.take(ledger.run)
    try:
        yield ledger
    finally:
        if not ledger.row_files() and not ledger.digest_files():
            files.delete()


def _refuse_other_rows(ledger: Ledger) -> None:
    """Rows of another form would be read as if they held nothing, and merged into it."""
    for file in ledger.row_files()[:1]:
        if ledger.form.name not in columns_of(file):
            raise DataError(
                f"{ledger.files.location}: holds what another kind of job made for this output; choose another {called('output.path')}"
            )


def ledger_format(folder: Path) -> int:
    """The number of a ledger's format.

    Raises:
        DataError: a newer version of this package wrote it.
    """
    file = folder / FORMAT
    return check_json("ledger", json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}, origin=file)


def delete_ledger(ledger: Ledger) -> None:
    """Remove a ledger; call with it open."""
    ledger.files.delete()


@dataclass(frozen=True)
class Index:
    """In-memory index of the ledger: the keys of rows that need not be made, sorted, 16 bytes each; no texts."""

    ok: np.ndarray  # made; a rewrite that is unfaithful is made, too
    failed: np.ndarray  # failed for good, as far as this run goes
    unasked: np.ndarray  # of `failed`: no engine saw the image, so no other instruction was tried either
    quarantined: frozenset[str] = frozenset()  # names of rows that ended their engine in an earlier run


def read_index(ledger: Ledger, *, retry_failed: bool) -> Index:
    """The keys of the rows that this run takes over or has made itself.

    Args:
        ledger: opened.
        retry_failed: leave out what failed in earlier runs, unless the image's own bytes are at fault: the key holds their digest.
    """
    ok, failed, unasked = [np.empty(0, KEYS)], [np.empty(0, KEYS)], [np.empty(0, KEYS)]
    quarantined: set[str] = set()
    for file in ledger.row_files():
        table = read_ledger_file(file, columns=["key", ledger.form.name, "status", "reason", "tries", "run"])
        keys = as_keys(table["key"])
        bad = pc.equal(table["status"], "failed").to_numpy()
        code = pc.replace_substring_regex(pc.fill_null(table["reason"], ""), ":.*", "")
        final = pc.is_in(code, pa.array(DAMAGE)).to_numpy() | pc.equal(table["run"], ledger.run).to_numpy() | (not retry_failed)
        ended_it = pc.and_(pc.equal(code, QUARANTINED), pc.not_equal(table["run"], ledger.run))
        quarantined.update(table[ledger.form.name].filter(ended_it).to_pylist())
        ok.append(keys[~bad])
        failed.append(keys[bad & final])
        unasked.append(keys[bad & final & pc.equal(table["tries"], 0).to_numpy()])
    keys_of = [np.unique(np.concatenate(parts)) for parts in (ok, failed, unasked)]
    return Index(keys_of[0], keys_of[1], keys_of[2], frozenset(quarantined))


def as_keys(column: pa.ChunkedArray | Sequence[bytes]) -> np.ndarray:
    """Keys as an array that sorts and searches, 16 bytes each."""
    if not isinstance(column, pa.ChunkedArray):
        return np.array(column, KEYS)
    chunks = [np.frombuffer(c.buffers()[1], KEYS, count=c.offset + len(c))[c.offset :] for c in column.chunks if len(c)]
    return np.concatenate(chunks) if chunks else np.empty(0, KEYS)


def find(keys: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Position of each key in a sorted array, or -1."""
    if not len(ordered):
        return np.full(len(keys), -1)
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[at] == keys, at, -1)


def ledger_table(staged: pa.Table, keys: Sequence[bytes], run: str) -> pa.Table:
    """A STAGED table and its rows' keys as LEDGER rows."""
    columns: dict[str, Any] = {name: staged[name] for name in STAGED.names}
    columns |= {"key": pa.array(keys, pa.binary(KEY_BYTES)), "run": [run] * len(keys), "made": [time.time()] * len(keys)}
    return pa.table(columns, schema=LEDGER)


def _block(name: str) -> str:
    return f"{ROWS}/block-{name}.parquet"


def ledger_rows(rows: Sequence[Mapping[str, Any]], run: str) -> pa.Table:
    """Rows that have their keys already as LEDGER rows."""
    return CAPTION_ROWS.table(rows, run)
