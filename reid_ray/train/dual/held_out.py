"""Held-out split of another data set, prepared for validation: its captions are the queries, all its pictures the gallery.

Written as files that the workers memory-map.
Knows tables; not models or scores. What cannot be used is counted by reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IMAGES
from reid_ray.storage import read_table, write_json
from reid_ray.train.dual.config import TransferSet
from reid_ray.train.feed.pairs import FACTS, PAIRS, PICTURES, VALIDATION, pack_pictures, person_numbers, write_arrow
from reid_ray.versions import numbered

GALLERY = "gallery.arrow"
_CAPTION_COLUMNS = ["caption_id", "image_id", "kind", "text", "status"]


def require_split(other: TransferSet, split: str) -> None:
    """See that a split can be evaluated, before anything is trained.

    Raises:
        DataError: it has no image, or no caption.
    """
    _queries(other, split, _images(other, split))


def prepare_held_out(other: TransferSet, split: str, folder: Path, *, max_pixels: int) -> dict[str, Any]:
    """Write VALIDATION, PICTURES and GALLERY (the person of each picture) of one split into `folder`, which must exist.

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
    images = _images(other, split)
    captions, left_out = _queries(other, split, images)
    pictures = pack_pictures(other.images, images["image_id"], folder / PICTURES, max_pixels=max_pixels)
    for reason in pictures.reasons.values():
        left_out[reason] = left_out.get(reason, 0) + 1
    image_row = pc.index_in(pictures.ids, images["image_id"]).to_numpy()
    person_G = person_numbers(images)[image_row]
    picture_Q = pc.index_in(captions["image_id"], pictures.ids)
    captions, picture_Q = captions.filter(pc.is_valid(picture_Q)), picture_Q.drop_null()
    if not captions.num_rows:
        raise DataError(f"{other.images}: no image of split {split!r} of {other.name} that a caption speaks of can be read: {left_out}")
    picture_Q = picture_Q.cast(pa.int64()).combine_chunks()
    columns = {
        "text": captions["text"].combine_chunks(),
        "rewrites": pa.array([[]] * captions.num_rows, pa.list_(pa.string())),
        "person": pa.array(person_G[picture_Q.to_numpy()]),
        "picture": picture_Q,
        "camera": pa.array([-1] * captions.num_rows, pa.int64()),
    }
    write_arrow(folder / VALIDATION, pa.table(columns, schema=PAIRS))
    write_arrow(folder / GALLERY, pa.table({"person": person_G}))
    facts = {"dataset": other.name, "split": split, "queries": captions.num_rows, "gallery": len(person_G), "left_out": left_out}
    write_json(folder / FACTS, {**numbered("prepared"), **facts})
    return facts


def _images(other: TransferSet, split: str) -> pa.Table:
    images = read_table(other.images, IMAGES, columns=["image_id", "dataset", "split", "person_id"])
    here = images.filter(pc.fill_null(pc.equal(images["split"], split), False))
    if not here.num_rows:
        has = sorted(set(images["split"].drop_null().to_pylist()))
        raise DataError(
            f"{other.images}: {other.name} has no image of split {split!r}, but of {has}; set transfer's val_split and test_split"
        )
    return here


def _queries(other: TransferSet, split: str, images: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Captions of known persons on `images`, and how many were left out and why."""
    captions = read_table(other.captions, CAPTIONS, columns=_CAPTION_COLUMNS)
    usable = pc.and_(pc.equal(captions["status"], "ok"), pc.is_in(captions["kind"], pa.array(other.caption_kinds)))
    usable = pc.and_(usable, pc.fill_null(pc.greater(pc.utf8_length(captions["text"]), 0), False))
    captions = captions.filter(pc.and_(usable, pc.is_in(captions["image_id"], images["image_id"])))
    known = images.filter(pc.is_valid(images["person_id"]))
    asked = captions.filter(pc.is_in(captions["image_id"], known["image_id"]))
    if not asked.num_rows:
        raise DataError(
            f"{other.captions}: {other.name} has no usable caption of kinds {other.caption_kinds} of a known person in split {split!r}; "
            "set transfer's caption_kinds, val_split and test_split"
        )
    strangers = captions.num_rows - asked.num_rows
    return asked, {"unknown_person": strangers} if strangers else {}
