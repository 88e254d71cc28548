"""The encoded images of a training run in Arrow files, each decoded once to see that it can be. Knows bytes; not captions or models."""

from __future__ import annotations

import os
import struct
import weakref
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reid_ray.config.common import ImagesConfig
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.perceptual_hash import BITS, picture_hash
from reid_ray.data.pieces import UNREAD, Piece
from reid_ray.data.sources import image_listing
from reid_ray.errors import DataError
from reid_ray.train.feed.prepared import RowFile
from reid_ray.train.feed.spread import Spread

# An encoded image, where it stands in the table of images, and its perceptual hash.
_SCHEMA = pa.schema([pa.field("image", pa.binary()), pa.field("image_row", pa.int64()), pa.field("near_hash", pa.binary(BITS // 8))])
_BATCH_BYTES = 8 << 20  # of one record batch: large enough that 4 M crops are some thousand batches, small beside a worker's memory
_THREADS = 4
_OFFSETS = struct.Struct("<2i")  # of a value and of the next one
_STRETCH_ROWS = 16_384  # images after which a stretch ends, at the end of a row group


class PictureStore(RowFile):
    """The encoded images of PICTURES by row number.

    They are read, not mapped: a mapped page costs a fault when it is first touched, which of a large set is each row's for a whole epoch,
    and a small set's for its first moments.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._opened = [os.open(file, os.O_RDONLY) for file in self._files]
        weakref.finalize(self, _close, self._opened)
        if not self._ahead and hasattr(os, "posix_fadvise"):
            for descriptor in self._opened:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        # Of each record batch its first row, and where its images' offsets and bytes begin in which file.
        at = zip(self._starts.tolist(), self._file_B.tolist(), self._at["image"].T.tolist(), strict=True) if self._at else ()
        self._images = [(start, file, offsets, max(0, data)) for start, file, (_, offsets, data) in at]
        self._batch_ends, self._bytes = self._ends.tolist(), [memoryview(memory) for memory in self._memory]

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(row)
        first_row, file, offsets, data = self._images[bisect_right(self._batch_ends, row)]
        start, end = _OFFSETS.unpack_from(self._bytes[file], offsets + _OFFSETS.size // 2 * (row - first_row))
        image = os.pread(self._opened[file], end - start, data + start)
        if len(image) != end - start:
            raise DataError(f"{self._files[file]}: ends within row {row}; it was cut since it was opened")
        return image


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


@dataclass(frozen=True)
class PackedPictures:
    """What became of each of the N images of a table.

    picture_N: its row in PICTURES, or -1; int64.
    hash_NB: its perceptual hash, uint8 [N, 16]; zeros where picture_N is -1.
    reason_N: the number of a reason why it cannot be read, or -1; int64.
    reasons: the reasons by their numbers.
    """

    picture_N: np.ndarray
    hash_NB: np.ndarray
    reason_N: np.ndarray
    reasons: list[str]


def pack_pictures(
    paths: Sequence[str], image_ids: pa.ChunkedArray, wanted_N: np.ndarray, out: Path, *, max_pixels: int, spread: Spread | None = None
) -> PackedPictures:
    """Copy the encoded images of `wanted_N` into a folder of Arrow files, each decoded once; goes on where an earlier call was cut off.

    Args:
        paths: the IMAGES tables.
        image_ids: their column image_id, read before; the tables must still have these rows in this order.
        wanted_N: which of their N images, bool.
        out: the folder; the caller empties it of what is not of this call (spread.begin_anew), and in the end of what tells what is
            finished (spread.forget).
        max_pixels: an image whose header claims more is left out.
        spread: who reads and decodes.

    Raises:
        DataError: a table changed since image_ids was read.
    """
    listings = [image_listing(ImagesConfig(source="parquet", path=path, max_pixels=max_pixels)) for path in paths]
    origin, count = ", ".join(paths), sum(listing.count for listing in listings)
    if count != len(wanted_N):
        raise DataError(f"{origin}: had {len(wanted_N)} rows and now has {count}; let its writer finish, then start again")
    stretches = list(_stretches([piece for listing in listings for piece in listing.pieces]))
    common = _Packing(origin, image_ids, wanted_N, max_pixels, threads=1 if len(stretches) > 1 else _THREADS)
    found = (spread or Spread()).write(out, _SCHEMA, _pack, common, stretches)
    picture_N, reason_N = np.full(len(wanted_N), -1, np.int64), np.full(len(wanted_N), -1, np.int64)
    hash_NB = np.zeros((len(wanted_N), BITS // 8), np.uint8)
    packed = 0
    for batch in RowFile(out).batches():
        row_P = batch.column("image_row").to_numpy()
        picture_N[row_P] = np.arange(packed, packed + len(row_P))
        hash_NB[row_P] = np.frombuffer(b"".join(batch.column("near_hash").to_pylist()), np.uint8).reshape(-1, BITS // 8)
        packed += len(row_P)
    reasons = sorted({reason for facts in found for reason in facts["failed"]})
    for facts in found:
        for reason, rows in facts["failed"].items():
            reason_N[rows] = reasons.index(reason)
    return PackedPictures(picture_N, hash_NB, reason_N, reasons)


@dataclass(frozen=True)
class _Stretch:
    """Neighbouring pieces of tables of images, from row `start` on, counted through all of them."""

    start: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class _Packing:
    """What all stretches have in common; see pack_pictures."""

    origin: str
    image_ids: pa.ChunkedArray
    wanted_N: np.ndarray
    max_pixels: int
    threads: int  # that decode, of each stretch


def _stretches(pieces: Sequence[Piece]) -> Iterator[_Stretch]:
    start = row = 0
    held: list[Piece] = []
    for piece in pieces:
        held.append(piece)
        row += piece.rows
        if row - start >= _STRETCH_ROWS:
            yield _Stretch(start, tuple(held))
            start, held = row, []
    if held or not row:
        yield _Stretch(start, tuple(held))


def _pack(common: _Packing, stretch: _Stretch) -> Generator[pa.RecordBatch, None, dict[str, Any]]:
    """The readable images of a stretch in batches; {"failed": {reason: [rows]}}."""
    row, size = stretch.start, 0
    failed: dict[str, list[int]] = {}
    held: list[tuple[bytes, int, bytes]] = []

    def checked(data: bytes | None, unread: str | None) -> tuple[str | None, bytes]:
        """Why an image cannot be read, or None and its hash."""
        try:
            return None, picture_hash(decode_image(data, max_pixels=common.max_pixels, unread=unread))
        except BadImageError as error:
            return error.reason, b""

    with ThreadPoolExecutor(common.threads) as pool:
        for table in (table for piece in stretch.pieces for table in piece.tables()):
            if not table["image_id"].equals(common.image_ids.slice(row, table.num_rows)):
                raise DataError(f"{common.origin}: changed while it was read; let its writer finish, then start again")
            here = np.flatnonzero(common.wanted_N[row : row + table.num_rows])
            chosen = table.take(pa.array(here))
            data, unread = chosen["image"].to_pylist(), chosen[UNREAD.name].to_pylist()
            for image, (why, hashed), place in zip(data, pool.map(checked, data, unread), (row + here).tolist(), strict=True):
                if why is not None:
                    failed.setdefault(why, []).append(place)
                    continue
                held.append((image, place, hashed))
                size += len(image)
            row += table.num_rows
            if size >= _BATCH_BYTES:
                yield _batch(held)
                held, size = [], 0
    if held:
        yield _batch(held)
    return {"failed": failed}


def _batch(rows: list[tuple[bytes, int, bytes]]) -> pa.RecordBatch:
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)], schema=_SCHEMA
    )
