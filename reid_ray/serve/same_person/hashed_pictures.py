"""Perceptual hashes of all pictures of a table, by as many processes as there are cores; those that cannot be decoded are counted.

Holds the ids and 16 bytes a picture: some hundred megabytes for four million. Knows tables and pictures; not what is asked of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from reid_ray.config.common import ImagesConfig
from reid_ray.data.config import LoadConfig
from reid_ray.data.fetch import load_all
from reid_ray.data.image_records import ImageRecord, Skipped
from reid_ray.data.images import DEFAULT_MAX_PIXELS, decode_image
from reid_ray.data.perceptual_hash import BITS, picture_hash
from reid_ray.data.pieces import MAX_FILE_BYTES, UNREAD
from reid_ray.data.sources import ImageListing, image_listing, iter_images
from reid_ray.progress import progress_bar

_TOLD_EVERY = 1024  # pictures


@dataclass(frozen=True)
class HashedPictures:
    """The pictures that could be looked at, and how many could not.

    Attributes:
        ids: their image_ids.
        hash_NB: uint8 [N, 16].
        failed: of the others, by reason.
    """

    ids: pa.ChunkedArray
    hash_NB: np.ndarray
    failed: Counter[str]


def hashed_pictures(path: str, *, processes: int | None = None) -> HashedPictures:
    """Hash every picture of a table.

    Args:
        path: IMAGES table.
        processes: that decode; None takes one a core, 0 this one. What takes a second is done here in any case.

    Raises:
        DataError: the table cannot be read, or a process died.
    """
    source = ImagesConfig(source="parquet", path=path)
    listing = image_listing(source)
    ids: list[pa.Array] = []
    some: list[str] = []
    hashes, failed = bytearray(), Counter[str]()
    load = LoadConfig(processes=processes)
    with progress_bar("look", listing.count, unit="image") as bar:
        done = load_all(_records(source, listing), _hash, load, remote=False, max_bytes=MAX_FILE_BYTES)
        for number, each in enumerate(done, 1):
            if isinstance(each, Skipped):
                failed[each.reason] += 1
            else:
                some.append(each.record.image_id)
                hashes += each.found
            if number % _TOLD_EVERY == 0:
                ids.append(pa.array(some, pa.string()))
                some = []
                bar.update(_TOLD_EVERY)
        bar.update(listing.count % _TOLD_EVERY)
    ids.append(pa.array(some, pa.string()))
    return HashedPictures(pa.chunked_array(ids), np.frombuffer(bytes(hashes), np.uint8).reshape(-1, BITS // 8), failed)


def _records(source: ImagesConfig, listing: ImageListing) -> Iterator[ImageRecord | Skipped]:
    for piece in iter_images(source, listing=listing):
        columns = (piece[name].to_pylist() for name in ("image_id", "image", UNREAD.name))
        for image_id, data, unread in zip(*columns, strict=True):
            if data is None:
                reason, _, detail = (unread or "missing: the row has neither bytes nor a path").partition(": ")
                yield Skipped(image_id, "", reason, detail)
            else:
                yield ImageRecord(image_id, "", data=data)


def _hash(data: bytes) -> bytes:
    return picture_hash(decode_image(data, max_pixels=DEFAULT_MAX_PIXELS))
