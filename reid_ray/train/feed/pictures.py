"""The encoded images of a training run in one file, each decoded once to see that it can be. Knows bytes; not captions or models."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from reid_ray.config.common import ImagesConfig
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.perceptual_hash import BITS, picture_hash
from reid_ray.data.pieces import UNREAD
from reid_ray.data.sources import iter_images
from reid_ray.errors import DataError
from reid_ray.train.feed.prepared import RowFile

_SCHEMA = pa.schema([pa.field("image", pa.binary())])
_BATCH_BYTES = 16 << 20  # of one record batch: large enough that 4 M crops are some thousand batches, small beside a worker's memory


class PictureStore(RowFile):
    """The encoded images of PICTURES by row number."""

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(row)
        number = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self._batch(number).column("image")[row - start].as_py()


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


def pack_pictures(path: str, image_ids: pa.ChunkedArray, wanted_N: np.ndarray, out: Path, *, max_pixels: int) -> PackedPictures:
    """Copy the encoded images of `wanted_N` into one Arrow file.

    Args:
        path: the IMAGES table.
        image_ids: its column image_id, read before; the table must still have these rows in this order.
        wanted_N: which of its N images, bool.
        out: the file.
        max_pixels: an image whose header claims more is left out.

    Raises:
        DataError: the table changed since image_ids was read.
    """
    picture_N, reason_N = np.full(len(wanted_N), -1, np.int64), np.full(len(wanted_N), -1, np.int64)
    hash_NB = np.zeros((len(wanted_N), BITS // 8), np.uint8)
    numbers: dict[str, int] = {}
    row = packed = size = 0

    def checked(data: bytes | None, unread: str | None) -> tuple[str | None, bytes]:
        """Why an image cannot be read, or None and its hash."""
        try:
            return None, picture_hash(decode_image(data, max_pixels=max_pixels, unread=unread))
        except BadImageError as error:
            return error.reason, b""

    source = ImagesConfig(source="parquet", path=path, max_pixels=max_pixels)
    with ThreadPoolExecutor(4) as pool, pa.OSFile(str(out), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        waiting: list[bytes] = []
        for piece in iter_images(source):
            if not piece["image_id"].equals(image_ids.slice(row, piece.num_rows)):
                raise DataError(f"{path}: changed while it was read; let its writer finish, then start again")
            here = np.flatnonzero(wanted_N[row : row + piece.num_rows])
            chosen = piece.take(pa.array(here))
            data, unread = chosen["image"].to_pylist(), chosen[UNREAD.name].to_pylist()
            for image, (why, hashed), place in zip(data, pool.map(checked, data, unread), (row + here).tolist(), strict=True):
                if why is not None:
                    reason_N[place] = numbers.setdefault(why, len(numbers))
                    continue
                picture_N[place], hash_NB[place] = packed, np.frombuffer(hashed, np.uint8)
                packed += 1
                waiting.append(image)
                size += len(image)
            if size >= _BATCH_BYTES:
                _write(writer, waiting)
                waiting, size = [], 0
            row += piece.num_rows
        _write(writer, waiting)
    if row != len(wanted_N):
        raise DataError(f"{path}: had {len(wanted_N)} rows and now has {row}; let its writer finish, then start again")
    return PackedPictures(picture_N, hash_NB, reason_N, list(numbers))


def _write(writer: pa.ipc.RecordBatchFileWriter, images: Iterable[bytes]) -> None:
    batch = pa.record_batch([pa.array(images, pa.binary())], schema=_SCHEMA)
    if batch.num_rows:
        writer.write_batch(batch)
