"""Held-out split of another data set, prepared for validation: its captions are the queries, all its pictures the gallery.

Written as files that the workers memory-map.
Knows tables; not models or scores. What cannot be used is counted by reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reid_ray.data.seen_rows import image_rows, read_with_source, text_rows
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, SEEN_FILE, text_hash64
from reid_ray.storage import read_table, write_json
from reid_ray.train.dual.config import TransferSet
from reid_ray.train.feed.join import ImageRows
from reid_ray.train.feed.pictures import pack_pictures
from reid_ray.train.feed.prepared import FACTS, PAIRS, PICTURES, VALIDATION, write_rows
from reid_ray.train.feed.splits import person_numbers
from reid_ray.train.feed.spread import begin_anew, forget
from reid_ray.versions import numbered

GALLERY = "gallery.arrow"
_GALLERY = pa.schema([pa.field("person", pa.int64(), nullable=False)])
_CAPTION_COLUMNS = ["caption_id", "image_id", "kind", "text", "status"]


def require_split(other: TransferSet, split: str) -> None:
    """See that a split can be evaluated, before anything is trained.

    Raises:
        DataError: it has no image, or no caption.
    """
    _queries(other, split, *_images(other, split))


def prepare_held_out(other: TransferSet, split: str, folder: Path, *, max_pixels: int) -> dict[str, Any]:
    """Write VALIDATION, PICTURES, GALLERY (the person of each picture) and SEEN_FILE of one split into `folder`, which must exist.

    Args:
        other: the data set.
        split: which of its splits.
        folder: where the files go.
        max_pixels: an image whose header claims more is left out.

    Returns:
        {"dataset", "split", "queries", "gallery", "left_out": {reason: rows}}.

    Raises:
        DataError: nothing is left to ask or to find.
    """
    images, here_N = _images(other, split)
    captions, left_out = _queries(other, split, images, here_N)
    begin_anew(folder / PICTURES)  # what a preparation that was cut off left may be of another table
    pictures = pack_pictures([other.images], images["image_id"], here_N, folder / PICTURES, max_pixels=max_pixels)
    for number, count in zip(*np.unique(pictures.reason_N[pictures.reason_N >= 0], return_counts=True), strict=True):
        reason = pictures.reasons[number]
        left_out[reason] = left_out.get(reason, 0) + int(count)
    kept = np.flatnonzero(pictures.picture_N >= 0)
    person_N = person_numbers(images)
    person_G = person_N[kept[np.argsort(pictures.picture_N[kept])]]
    picture_Q = pictures.picture_N[captions["image_row"].to_numpy()]
    captions, picture_Q = captions.filter(pa.array(picture_Q >= 0)), picture_Q[picture_Q >= 0]
    if not captions.num_rows:
        raise DataError(f"{other.images}: no image of split {split!r} of {other.name} that a caption speaks of can be read: {left_out}")
    columns = {
        "text": captions["text"].combine_chunks(),
        "rewrites": pa.array([[]] * captions.num_rows, pa.list_(pa.string())),
        "person": pa.array(person_G[picture_Q]),
        "picture": pa.array(picture_Q),
        "camera": pa.array([-1] * captions.num_rows, pa.int64()),
        "synthetic": pa.array([False] * captions.num_rows),
    }
    write_rows(folder / VALIDATION, PAIRS, [pa.table(columns, schema=PAIRS)])
    write_rows(folder / GALLERY, _GALLERY, [pa.table({"person": person_G}, schema=_GALLERY)])
    gallery = image_rows("val", images.take(pa.array(kept)), pictures.hash_NB[kept])
    pq.write_table(pa.concat_tables([gallery, text_rows("val", text_hash64(captions["text"]))]), folder / SEEN_FILE)
    facts = {"dataset": other.name, "split": split, "queries": captions.num_rows, "gallery": len(person_G), "left_out": left_out}
    forget(folder / PICTURES)
    write_json(folder / FACTS, {**numbered("prepared"), **facts})
    return facts


def _images(other: TransferSet, split: str) -> tuple[pa.Table, np.ndarray]:
    """All images, and which photographs are of `split`, bool [N]: people whom an editor made are nobody's test."""
    images = read_with_source(other.images, ["image_id", "dataset", "split", "person_id", "image_sha256", "synthetic"])
    here_N = pc.fill_null(pc.equal(images["split"], split), False).to_numpy() & ~pc.fill_null(images["synthetic"], False).to_numpy()
    if not here_N.any():
        has = sorted(pc.unique(images["split"].drop_null()).to_pylist())
        raise DataError(
            f"{other.images}: {other.name} has no image of split {split!r}, but of {has}; set transfer's val_split and test_split"
        )
    return images, here_N


def _queries(other: TransferSet, split: str, images: pa.Table, here_N: np.ndarray) -> tuple[pa.Table, dict[str, int]]:
    """Captions of known persons on images of the split, with the image's row, and how many were left out and why."""
    captions = read_table(other.captions, CAPTIONS, columns=_CAPTION_COLUMNS)
    usable = pc.and_(pc.equal(captions["status"], "ok"), pc.is_in(captions["kind"], pa.array(other.caption_kinds)))
    captions = captions.filter(pc.and_(usable, pc.fill_null(pc.greater(pc.utf8_length(captions["text"]), 0), False)))
    row_Q = ImageRows(images["image_id"], origin=other.images).find(captions["image_id"].combine_chunks())
    in_split_Q = (row_Q >= 0) & here_N[row_Q]
    known_Q = in_split_Q & pc.is_valid(images["person_id"]).to_numpy()[row_Q]
    asked = captions.append_column("image_row", pa.array(row_Q)).filter(pa.array(known_Q))
    if not asked.num_rows:
        raise DataError(
            f"{other.captions}: {other.name} has no usable caption of kinds {other.caption_kinds} of a known person in split {split!r}; "
            "set transfer's caption_kinds, val_split and test_split"
        )
    strangers = int(in_split_Q.sum() - known_Q.sum())
    return asked, {"unknown_person": strangers} if strangers else {}
