"""Pairs of pictures that may be one person, best first, and the pictures to show of them.

By perceptual hashes of the pictures, which finds near duplicates and needs no model; or by vectors that the embed job wrote, which finds
people. Thumbnails lie in a nameless file on disk while the page is open. Knows tables and pictures; not decisions.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from reid_ray.config.common import ImagesConfig
from reid_ray.data.images import DEFAULT_MAX_PIXELS, BadImageError, decode_image, jpeg_thumbnail
from reid_ray.data.perceptual_hash import BITS, NEAR_BITS, picture_hash
from reid_ray.data.sources import image_listing, iter_images
from reid_ray.errors import DataError
from reid_ray.progress import progress_bar
from reid_ray.records import IMAGES
from reid_ray.retrieval.embed.features import read_features
from reid_ray.retrieval.evaluate.own_tracks import read_tracks, tracks_of
from reid_ray.retrieval.index.near_hashes import NearHashes
from reid_ray.retrieval.index.near_vectors import neighbour_pairs
from reid_ray.serve.same_person.identity_groups import KnownImage
from reid_ray.storage import read_table

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
    """

    images: list[KnownImage]
    pair_P2: np.ndarray
    score_P: np.ndarray
    pictures: ThumbnailFile


def known_images(path: str, *, tracks: bool, only: set[str] | None = None) -> list[KnownImage]:
    """What a table of images says of each, or of those `only`.

    Args:
        path: IMAGES table.
        tracks: whether pictures of one track (column track) count as one person.
        only: image_ids; with `tracks` also all that are of a track.

    Raises:
        DataError: it cannot be read.
    """
    table = read_table(path, IMAGES, columns=["image_id", "dataset", "person_id"])
    found = read_tracks(path, "image_id") if tracks else None
    columns = [table[name].to_pylist() for name in table.column_names] + [tracks_of(table["image_id"], found).to_pylist()]
    return [KnownImage(*row) for row in zip(*columns, strict=True) if only is None or row[0] in only or row[3] is not None]


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
    images = known_images(path, tracks=tracks)
    row_of = {image.image_id: row for row, image in enumerate(images)}
    if embeddings is not None:
        features = read_features(embeddings, kind="image", split=None)
        pair_P2, score_P = neighbour_pairs(features.vector_ND, neighbours=neighbours, least=least)
        own_N = np.array([row_of.get(name, -1) for name in features.ids], np.int64)
        pair_P2 = own_N[pair_P2]
        kept_P = (pair_P2 >= 0).all(axis=1)
        pair_P2, score_P = pair_P2[kept_P], score_P[kept_P]
    else:
        pair_P2, score_P = _near_duplicates(path, row_of)
    pair_P2, score_P = pair_P2[:most], score_P[:most]
    if not len(pair_P2):
        how = (
            f"a cosine of {least} or more in {embeddings}" if embeddings is not None else f"{NEAR_BITS} of {BITS} bits of a perceptual hash"
        )
        remedy = "lower --least" if embeddings is not None else "give --embeddings, which find people and not copies"
        raise DataError(f"{path}: no two of {len(images)} pictures look alike by {how}; {remedy}")
    row_U, place = np.unique(pair_P2, return_inverse=True)
    asked = [images[row] for row in row_U.tolist()]
    return LookAlikes(asked, place.reshape(pair_P2.shape), score_P, _thumbnails(path, asked))


def _near_duplicates(path: str, row_of: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    source = ImagesConfig(source="parquet", path=path)
    listing = image_listing(source)
    rows, hashes = [], []
    with progress_bar("look", listing.count, unit="image") as bar:
        for piece in iter_images(source, listing=listing):
            for image_id, data in zip(piece["image_id"].to_pylist(), piece["image"].to_pylist(), strict=True):
                try:
                    hashes.append(picture_hash(decode_image(data, max_pixels=DEFAULT_MAX_PIXELS)))
                    rows.append(row_of[image_id])
                except BadImageError:
                    continue  # shows nothing that could be compared
            bar.update(piece.num_rows)
    hash_NB = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, BITS // 8)
    first_P, second_P = NearHashes(hash_NB).pairs(hash_NB)
    kept_P = first_P < second_P
    first_P, second_P = first_P[kept_P], second_P[kept_P]
    bits_P = np.unpackbits(hash_NB[first_P] ^ hash_NB[second_P], axis=1).sum(axis=1)
    order = np.lexsort((second_P, first_P, bits_P))
    row_N = np.array(rows, np.int64)
    return np.stack([row_N[first_P], row_N[second_P]], axis=1)[order], (1 - bits_P[order] / BITS).astype(np.float32)


def _thumbnails(path: str, images: list[KnownImage]) -> ThumbnailFile:
    row_of = {image.image_id: row for row, image in enumerate(images)}
    kept = ThumbnailFile()
    source = ImagesConfig(source="parquet", path=path)
    with progress_bar("pictures", len(images), unit="image") as bar:
        for piece in iter_images(source, only=pa.array(row_of)):
            for image_id, data in zip(piece["image_id"].to_pylist(), piece["image"].to_pylist(), strict=True):
                try:
                    picture = decode_image(data, max_pixels=DEFAULT_MAX_PIXELS)
                except BadImageError:
                    continue
                kept.add(row_of[image_id], jpeg_thumbnail(picture, width=_THUMBNAIL[0], height=_THUMBNAIL[1]))
            bar.update(piece.num_rows)
    return kept
