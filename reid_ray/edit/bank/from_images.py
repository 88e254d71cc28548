"""References out of images: their segments, cut out, unless the image is one that scores something or that an editor made.

Two passes: the segments say what is to be cut out of which image, the images are read for those alone. Memory is that of the masks that
were drawn, a kilobyte each. Knows tables; how a thing is cut out is cut_out.py's.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from heapq import heappush, heappushpop
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.data.bit_masks import decode_mask
from reid_ray.data.images import BadImageError, decode_image
from reid_ray.data.pieces import UNREAD
from reid_ray.data.sources import ImageListing, iter_images
from reid_ray.edit.bank.config import ReferencesJob
from reid_ray.edit.bank.cut_out import cut_out
from reid_ray.edit.bank.known_values import values_from_attributes, values_from_caption
from reid_ray.records import CAPTIONS, IDENTITY_COLUMNS, IMAGES, SEGMENTS
from reid_ray.storage import iter_table

Row = dict[str, Any]
HELD_OUT = ("val", "test", "query", "gallery")
TABLE = "table"
_SEGMENT_COLUMNS = ["image_id", "image_sha256", "slot", "caption_id", "noun_start", "mask", "box", "status", *IDENTITY_COLUMNS]


def held_out_contents(config: ReferencesJob) -> frozenset[str]:
    """Digests of the images of splits that score something, as far as the tables know them: a picture may be in two splits."""
    found: set[str] = set()
    tables = [(config.segments, SEGMENTS)]
    if config.images is not None and config.images.source == "parquet":
        tables.append((config.images.path, IMAGES))
    for path, schema in tables:
        for table in iter_table(path, schema, columns=["image_sha256", "split"]) if path is not None else ():
            own = table.filter(pc.is_in(table["split"], value_set=pa.array(HELD_OUT)))["image_sha256"]
            found.update(digest for digest in own.unique().to_pylist() if digest is not None)
    return frozenset(found)


def why_refused(row: Mapping[str, Any], held_out: frozenset[str], *, unsplit: bool) -> str | None:
    """Why a picture gives no reference; None if it may.

    Args:
        row: split, image_sha256 and synthetic of the picture.
        held_out: digests of pictures that score something.
        unsplit: whether one without a split may.
    """
    if row["split"] in HELD_OUT:
        return f"other_split: {row['split']}"
    if row["image_sha256"] in held_out:
        return "other_split: the same picture is in a split that scores"
    if row["split"] is None and not unsplit:
        return "no_split"
    if row["synthetic"]:
        return "made_by_editor"
    return None


def segments_to_cut(config: ReferencesJob, held_out: frozenset[str]) -> dict[str, list[Row]]:
    """Of each image, by its id, the segments to cut out.

    Of more than most_per_slot a sample is taken by the hash of image and slot: the same one in whatever order they come.
    """
    heaps: dict[str, list[tuple[int, str]]] = defaultdict(list)
    kept: dict[tuple[str, str], Row] = {}
    for row in _segments(config):
        if why_not_cut(row, held_out, config) is not None:
            continue
        image_id, slot = row["image_id"], row["slot"]
        heap, entry = heaps[slot], (-_lot(image_id, slot), image_id)
        kept[image_id, slot] = row
        if config.most_per_slot is None or len(heap) < config.most_per_slot:
            heappush(heap, entry)
        else:
            del kept[heappushpop(heap, entry)[1], slot]
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in kept.values():
        by_image[row["image_id"]].append(row)
    return by_image


def refused_segments(config: ReferencesJob, held_out: frozenset[str], by_image: Mapping[str, list[Row]]) -> Iterator[Row]:
    """Rows of REFERENCES for the segments that are not cut out: their image scores something, or others were drawn."""
    for row in _segments(config):
        if not any(kept["slot"] == row["slot"] for kept in by_image.get(row["image_id"], ())):
            why = why_not_cut(row, held_out, config)
            if why is None:
                why = "not_drawn"
            yield refused_row(row, why, status="failed" if why.startswith("too_little") else "refused")


def why_not_cut(row: Row, held_out: frozenset[str], config: ReferencesJob) -> str | None:
    """Why a segment is not cut out, as far as its own row tells; None if it may."""
    left, top, right, bottom = row["box"]
    if min(right - left, bottom - top) < config.min_side:  # known before it is cut, so that it takes no other's place
        return f"too_little: {right - left} x {bottom - top} of it shows; min_side is {config.min_side}"
    return why_refused(row, held_out, unsplit=config.unsplit)


def _segments(config: ReferencesJob) -> Iterator[Row]:
    """Every slot of an image once, whichever of its captions it is linked to; the rows of an image lie together."""
    image_id, slots = None, set[str]()
    for table in iter_table(str(config.segments), SEGMENTS, columns=_SEGMENT_COLUMNS):
        wanted = table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.is_in(table["slot"], value_set=pa.array(config.slots))))
        for row in wanted.to_pylist():
            if row["image_id"] != image_id:
                image_id, slots = row["image_id"], set()
            if row["slot"] not in slots:
                slots.add(row["slot"])
                yield row


def _lot(image_id: str, slot: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{image_id} {slot}".encode("utf-8", "surrogatepass")).digest()[:12])


def refused_row(segment: Mapping[str, Any], why: str, *, status: str = "refused") -> Row:
    """A row of REFERENCES for a segment that is not one."""
    digest = hashlib.sha256(f"{segment['image_id']} {segment['slot']}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return {**_of_source(segment), "reference_id": digest, "status": status, "reason": why}


def _of_source(segment: Mapping[str, Any]) -> Row:
    row = {name: segment[name] for name in ("slot", "image_sha256", *IDENTITY_COLUMNS)}
    return {**row, "source_image_id": segment["image_id"], "source": TABLE}


def cut_segments(
    config: ReferencesJob, listing: ImageListing, by_image: Mapping[str, list[Row]], held_out: frozenset[str]
) -> Iterator[tuple[Row, np.ndarray | None]]:
    """(a row without its id and picture, the thing) of each segment of `by_image`; of one that cannot be cut out (its whole row, None)."""
    assert config.images is not None
    texts = _texts(config, by_image)
    left = set(by_image)
    for table in iter_images(config.images, listing=listing, only=pa.array(sorted(by_image), pa.string())):
        for image in table.to_pylist():
            if image["image_id"] not in left:
                continue
            left.discard(image["image_id"])
            for segment in by_image[image["image_id"]]:
                try:
                    why = why_refused(image, held_out, unsplit=config.unsplit)  # the image's own word, whatever its segments say
                    if why is not None:
                        yield refused_row(segment, why), None
                        continue
                    thing = _thing(config, image, segment)
                except BadImageError as error:
                    yield refused_row(segment, str(error), status="failed"), None
                    continue
                said = texts.get(segment["caption_id"])
                values = values_from_attributes(segment["slot"], image["attributes"])
                values |= {} if values or said is None else values_from_caption(segment["slot"], said, segment["noun_start"])
                yield {**_of_source(segment), "values": values}, thing
    for image_id in sorted(left):
        for segment in by_image[image_id]:
            yield refused_row(segment, "image_unknown", status="failed"), None


def _thing(config: ReferencesJob, image: Mapping[str, Any], segment: Mapping[str, Any]) -> np.ndarray:
    if segment["image_sha256"] is not None and image["image_sha256"] not in (None, segment["image_sha256"]):
        raise BadImageError("changed_image", "the image is another than the one that was parsed")
    assert config.images is not None
    picture = decode_image(image["image"], max_pixels=config.images.max_pixels, unread=image[UNREAD.name])
    mask_HW = decode_mask(segment["mask"], width=picture.width, height=picture.height)
    return cut_out(np.asarray(picture), mask_HW, min_side=config.min_side, max_side=config.max_side)


def _texts(config: ReferencesJob, by_image: Mapping[str, list[Row]]) -> dict[str, str]:
    """caption_id -> text, of the captions to which the segments are linked."""
    wanted = {segment["caption_id"] for own in by_image.values() for segment in own} - {None}
    if config.captions is None or not wanted:
        return {}
    found: dict[str, str] = {}
    ids = pa.array(sorted(wanted), pa.string())
    for table in iter_table(config.captions, CAPTIONS, columns=["caption_id", "text"]):
        own = table.filter(pc.and_(pc.is_in(table["caption_id"], value_set=ids), pc.is_valid(table["text"])))
        found.update(zip(own["caption_id"].to_pylist(), own["text"].to_pylist(), strict=True))
    return found
