"""Pairs of pictures that may be one person, best first, and the pictures to show of them.

By perceptual hashes of the pictures, which finds near duplicates and needs no model; or by vectors that the embed job wrote, which finds
people. Of all pictures only columns, vectors or hashes are held, of those that are asked about (at most two a pair) more. Thumbnails lie in
a nameless file on disk while the page is open. Knows tables and pictures; not decisions.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.config.common import ImagesConfig
from reid_ray.data.images import DEFAULT_MAX_PIXELS, BadImageError, decode_image, jpeg_thumbnail
from reid_ray.data.perceptual_hash import BITS, NEAR_BITS
from reid_ray.data.pieces import UNREAD
from reid_ray.data.sources import iter_images
from reid_ray.errors import DataError
from reid_ray.progress import progress_bar
from reid_ray.records import IMAGES
from reid_ray.retrieval.embed.features import read_features
from reid_ray.retrieval.evaluate.own_tracks import read_tracks, tracks_of
from reid_ray.retrieval.index.near_hashes import best_near_pairs
from reid_ray.retrieval.index.near_vectors import neighbour_pairs
from reid_ray.serve.same_person.hashed_pictures import hashed_pictures
from reid_ray.serve.same_person.identity_groups import KnownImage
from reid_ray.storage import read_table
from reid_ray.terminal.counted import counted

_THUMBNAIL = (160, 240)  # width and height at most, pixels


class ThumbnailFile:
    """JPEG files by row in one file of TMPDIR that has no name, so it is gone with its process; may be read from several threads."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - held as long as this
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0

    def add(self, row: int, jpeg: bytes) -> None:
        """Keep a picture."""
        os.pwrite(self._file.fileno(), jpeg, self._end)
        self._places[row] = (self._end, len(jpeg))
        self._end += len(jpeg)

    def read(self, row: int) -> bytes | None:
        """A picture; None if there is none."""
        start, size = self._places.get(row, (0, 0))
        return os.pread(self._file.fileno(), size, start) or None


@dataclass(frozen=True)
class LookAlikes:
    """The images that are asked about, and pairs of them.

    Attributes:
        images: each that is in a pair.
        pair_P2: int64, rows of `images`, best first.
        score_P: how alike, in [0, 1] of hashes (share of equal bits), or a cosine.
        pictures: their thumbnails.
        passed_over: how many others could not be compared, or cannot be shown, by reason.
    """

    images: list[KnownImage]
    pair_P2: np.ndarray
    score_P: np.ndarray
    pictures: ThumbnailFile
    passed_over: Mapping[str, int]


def known_images(path: str, *, tracks: bool, only: set[str]) -> list[KnownImage]:
    """What a table of images says of some.

    Args:
        path: IMAGES table.
        tracks: whether pictures of one track (column track) count as one person.
        only: image_ids; with `tracks` also all that are of a track.

    Raises:
        DataError: it cannot be read.
    """
    told = _told(path, tracks=tracks)
    named = pc.is_in(told["image_id"], pa.array(sorted(only), pa.string()))
    return _known(told.filter(pc.or_(named, told["track"].is_valid())))


def look_alikes(path: str, *, embeddings: str | None, neighbours: int, least: float, most: int, tracks: bool) -> LookAlikes:
    """The pairs of a table's images that look most alike.

    Args:
        path: IMAGES table.
        embeddings: EMBEDDINGS table of these images; None compares perceptual hashes.
        neighbours: with embeddings, how many of each image are asked about.
        least: with embeddings, the smallest cosine.
        most: pairs at most; the best are taken.
        tracks: as of known_images.

    Raises:
        DataError: nothing can be compared, or nothing looks alike.
    """
    told = _told(path, tracks=tracks)
    if embeddings is not None:
        features = read_features(embeddings, kind="image", split=None)
        ids, unused = features.items["item_id"], Counter(features.unused)
        pair_P2, score_P = neighbour_pairs(features.vector_ND, neighbours=neighbours, least=least)
    else:
        hashed = hashed_pictures(path)
        ids, unused = hashed.ids, hashed.failed
        pair_P2, bits_P = best_near_pairs(hashed.hash_NB, most=most)
        score_P = (1 - bits_P / BITS).astype(np.float32)
    row_N = pc.fill_null(pc.index_in(ids, value_set=told["image_id"].combine_chunks()), -1).to_numpy()
    if lacking := told.num_rows - int(np.count_nonzero(row_N >= 0)) - unused.total():
        unused["no_vector"] += max(0, lacking)
    pair_P2 = row_N[pair_P2]
    kept_P = (pair_P2 >= 0).all(axis=1)
    pair_P2, score_P = pair_P2[kept_P][:most], score_P[kept_P][:most]
    if not len(pair_P2):
        how = (
            f"a cosine of {least} or more in {embeddings}" if embeddings is not None else f"{NEAR_BITS} of {BITS} bits of a perceptual hash"
        )
        remedy = "lower --least" if embeddings is not None else "give --embeddings, which find people and not copies"
        raise DataError(f"{path}: no two of {told.num_rows} pictures look alike by {how}{_in_words(unused)}; {remedy}")
    row_U, place = np.unique(pair_P2, return_inverse=True)
    asked = _known(told.take(pa.array(row_U)))
    pictures = _thumbnails(path, asked, unused)
    return LookAlikes(asked, place.reshape(pair_P2.shape), score_P, pictures, +unused)


def passed_over_in_words(passed_over: Mapping[str, int]) -> str:
    """As in: 3 pictures could not be compared (truncated 2, missing 1)."""
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(passed_over.items()))
    return f"{counted(sum(passed_over.values()), 'picture')} could not be compared ({reasons})"


def _in_words(passed_over: Counter[str]) -> str:
    return f" ({passed_over_in_words(+passed_over)})" if +passed_over else ""


def _told(path: str, *, tracks: bool) -> pa.Table:
    """Columns image_id, dataset, person_id and track of a table of images: what KnownImage takes, a row an image."""
    table = read_table(path, IMAGES, columns=["image_id", "dataset", "person_id"])
    found = read_tracks(path, "image_id") if tracks else None
    return table.append_column("track", tracks_of(table["image_id"], found))


def _known(told: pa.Table) -> list[KnownImage]:
    return [KnownImage(*row) for row in zip(*(told[name].to_pylist() for name in told.column_names), strict=True)]


def _thumbnails(path: str, images: list[KnownImage], unused: Counter[str]) -> ThumbnailFile:
    """Small pictures of `images`; those that cannot be decoded are counted in `unused`."""
    row_of = {image.image_id: row for row, image in enumerate(images)}
    kept = ThumbnailFile()
    source = ImagesConfig(source="parquet", path=path)
    with progress_bar("pictures", len(images), unit="image") as bar:
        for piece in iter_images(source, only=pa.array(row_of)):
            columns = (piece[name].to_pylist() for name in ("image_id", "image", UNREAD.name))
            for image_id, data, unread in zip(*columns, strict=True):
                try:
                    picture = decode_image(data, max_pixels=DEFAULT_MAX_PIXELS, unread=unread)
                except BadImageError as error:
                    unused[error.reason] += 1
                    continue
                kept.add(row_of[image_id], jpeg_thumbnail(picture, width=_THUMBNAIL[0], height=_THUMBNAIL[1]))
            bar.update(piece.num_rows)
    return kept
