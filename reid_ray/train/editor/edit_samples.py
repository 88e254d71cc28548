"""Data preparation of train_editor: segments, their captions, images and references joined into files that workers map.

A sample is an image with one caption and its things, each with its mask and its noun. SEGMENTS is streamed once; what is held
is numbers, and the captions' hashes. Knows tables and reasons; not models or batches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.attributes.substitution import CannotSubstituteError, Substituted, substitute
from reid_ray.data.seen_rows import read_with_source
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, REFERENCES, SEEN_FILE, SEGMENTS
from reid_ray.storage import Counts, iter_table
from reid_ray.train.editor.config import TrainEditorJob
from reid_ray.train.feed.join import ImageRows
from reid_ray.train.feed.key_index import KeyIndex, hashes
from reid_ray.train.feed.pictures import PackedPictures, pack_pictures
from reid_ray.train.feed.prepared import PICTURES, SAMPLES, RowFile, write_rows
from reid_ray.train.feed.seen import write_seen
from reid_ray.train.feed.splits import Roles
from reid_ray.train.feed.spread import begin_anew, forget, over_the_cluster

TEXTS, MASKS, THINGS, VALUES = "texts.arrow", "masks.arrow", "things.arrow", "values.json"
_BATCH, _REFERENCES = 16_384, 1024  # rows at a time; a reference has its picture
UNKNOWN = -100  # a value that a reference does not tell

_TEXT = pa.schema([pa.field("caption_id", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)])
_MASK = pa.schema([pa.field("mask", pa.binary(), nullable=False)])
# One thing in one picture: `start` and `end` are its noun's characters, `mask` a row of MASKS, `thing` the key in THINGS of the same thing
# of the same person, `own` the row of THINGS that was cut out here, or -1.
_SEGMENT = pa.struct(
    [
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("mask", pa.int64(), nullable=False),
        pa.field("thing", pa.int64(), nullable=False),
        pa.field("own", pa.int64(), nullable=False),
    ]
)
EDIT_SAMPLES = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("picture", pa.int64(), nullable=False),
        pa.field("segments", pa.list_(_SEGMENT), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("caption_id", pa.string(), nullable=False),
    ]
)
# References; `values` are numbers in VALUES, -100 unknown; `picture` is the row of PICTURES it was cut out of, or -1.
_THING = pa.schema(
    [
        pa.field("thing", pa.int64(), nullable=False),
        pa.field("picture", pa.int64(), nullable=False),
        pa.field("values", pa.list_(pa.int64()), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
# Which nouns of a prompt lie within what the text encoder reads.
Fits = Callable[[str, Sequence[tuple[int, int]]], list[bool]]


def prepare_texts(config: TrainEditorJob, folder: Path) -> int:
    """Write the usable captions of all tables; returns how many. Those of other splits go along, and are never looked up."""

    def rows() -> Iterator[pa.Table]:
        for path in config.data.captions:
            for table in iter_table(path, CAPTIONS, columns=["caption_id", "text", "status"], batch_rows=_BATCH):
                usable = pc.and_(pc.equal(table["status"], "ok"), pc.greater(pc.fill_null(pc.utf8_length(table["text"]), 0), 0))
                yield table.filter(usable).select(_TEXT.names)

    return write_rows(folder / TEXTS, _TEXT, rows())


def texts_in(folder: Path) -> Iterator[str]:
    """The captions that prepare_texts wrote."""
    for batch in RowFile(folder / TEXTS).batches():
        yield from batch.column("text").to_pylist()


def prepare_samples(config: TrainEditorJob, folder: Path, counts: Counts, *, fits: Fits) -> dict[str, Any]:
    """Write what workers read into `folder`, after prepare_texts. Returns facts: samples, segments, pictures, persons, references.

    Args:
        config: the job.
        folder: the run's data.
        counts: of segments: read, written (used), failed by reason.
        fits: which nouns the model reads.

    Raises:
        DataError: fewer samples than a batch are left; says why the others dropped out.
    """
    images = read_with_source(config.images.path, ["image_id", "dataset", "split", "person_id", "image_sha256"])
    split = config.images.train_split
    learnt = pc.is_null(images["split"]) if split is None else pc.fill_null(pc.equal(images["split"], split), False)
    learnt_N = learnt.combine_chunks().to_numpy(zero_copy_only=False) if isinstance(learnt, pa.ChunkedArray) else np.asarray(learnt)
    begin_anew(folder / PICTURES)
    pictures = pack_pictures(
        *([config.images.path], images["image_id"], learnt_N, folder / PICTURES),
        max_pixels=config.images.max_pixels,
        spread=over_the_cluster(),
    )
    forget(folder / PICTURES)
    join = _Join(images, learnt_N, pictures, folder, origin=config.images.path)
    join.write_things(config.data.references)
    samples = write_rows(folder / SAMPLES, EDIT_SAMPLES, _rows(join, config.data.segments, folder, counts, fits))
    used_N = np.isin(pictures.picture_N, RowFile(folder / SAMPLES).column("picture")) & (pictures.picture_N >= 0)
    nobody_N = np.zeros(len(used_N), bool)
    roles = Roles(train_N=used_N, val_N=nobody_N, person_N=np.zeros(len(used_N), np.int64), held_back_N=nobody_N)
    texts = {"train": RowFile(folder / SAMPLES)}
    write_seen(folder / SEEN_FILE, images, roles, hash_NB=pictures.hash_NB, used_N=used_N, texts=texts)
    counts.written = join.used
    counts.unused = +counts.unused
    if samples < config.batches.size:
        raise DataError(
            f"{config.data.segments}: {samples} images with a caption and a segment are usable, fewer than batches.size "
            f"{config.batches.size}; segments: {counts}; check images.train_split and data.captions, or lower batches.size"
        )
    return {
        "samples": samples,
        "segments": join.used,
        "pictures": int((pictures.picture_N >= 0).sum()),
        "persons": pc.count_distinct(images["person_id"].filter(pa.array(learnt_N))).as_py(),
        "references": len(RowFile(folder / THINGS)),
    }


class _Join:
    """What rows of SEGMENTS are looked up in: images by id, captions by id, references by thing."""

    def __init__(self, images: pa.Table, learnt_N: np.ndarray, pictures: PackedPictures, folder: Path, *, origin: str) -> None:
        self.images, self.learnt_N, self.pictures, self.folder = ImageRows(images["image_id"], origin=origin), learnt_N, pictures, folder
        self.texts = RowFile(folder / TEXTS)
        keys = [hashes(batch.column("caption_id")) for batch in self.texts.batches()]
        self._text_index = KeyIndex(np.concatenate(keys) if keys else np.zeros(0, np.uint64))
        self._own_index = KeyIndex(np.zeros(0, np.uint64))
        self.used = 0

    def write_things(self, references: str | None) -> None:
        """THINGS and VALUES, from the references that may be used and come from images that are learnt from; streamed, in their order."""
        known: dict[str, set[str]] = {}
        for table in self._usable_references(references, ["values"]):
            for each in table["values"].to_pylist():
                for name, value in json.loads(each or "{}").items():
                    known.setdefault(name, set()).add(value)
        values = {name: sorted(known[name]) for name in sorted(known)}
        (self.folder / VALUES).write_text(json.dumps(values), encoding="utf-8")
        number = {name: {value: place for place, value in enumerate(said)} for name, said in values.items()}
        owns = [np.zeros(0, np.uint64)]

        def rows() -> Iterator[pa.Table]:
            for table in self._usable_references(references, ["values", "image"]):
                said = [json.loads(each or "{}") for each in table["values"].to_pylist()]
                image = table["source_image_id"].combine_chunks()
                owns.append(hashes(pc.binary_join_element_wise(image, table["slot"].combine_chunks(), "\0")))
                columns = [
                    pa.array(thing_keys(table["dataset"], table["person_id"], table["source_image_id"], table["slot"])),
                    pa.array(self.pictures.picture_N[self.images.find(image)]),
                    pa.array([[number[name].get(each.get(name), UNKNOWN) for name in values] for each in said], pa.list_(pa.int64())),
                    table["image"].combine_chunks(),
                ]
                yield pa.table(columns, schema=_THING)

        write_rows(self.folder / THINGS, _THING, rows())
        self._own_index = KeyIndex(np.concatenate(owns))

    def _usable_references(self, references: str | None, columns: list[str]) -> Iterator[pa.Table]:
        if references is None:
            return
        wanted = [*columns, "status", "slot", "source_image_id", "dataset", "person_id"]
        for table in iter_table(references, REFERENCES, columns=wanted, batch_rows=_REFERENCES):
            row_R = self.images.find(table["source_image_id"].combine_chunks())
            keep_R = (row_R >= 0) & self.learnt_N[np.maximum(row_R, 0)]
            yield table.filter(pc.and_(pa.array(keep_R), pc.equal(table["status"], "ok").combine_chunks()))

    def text_rows(self, caption_ids: pa.Array) -> np.ndarray:
        """Rows of TEXTS, -1 where none has the id."""
        row_R = self._text_index.find(hashes(caption_ids))
        hit = np.flatnonzero(row_R >= 0)
        same = pc.equal(self.texts.take(row_R[hit])["caption_id"].combine_chunks(), caption_ids.take(pa.array(hit)))
        row_R[hit[~np.asarray(same)]] = -1
        return row_R

    def own_rows(self, image_ids: pa.Array, slots: pa.Array) -> np.ndarray:
        """Rows of THINGS that were cut out of these segments, -1 where none was."""
        return self._own_index.find(hashes(pc.binary_join_element_wise(image_ids, slots, "\0")))


def thing_keys(dataset: pa.ChunkedArray, person: pa.ChunkedArray, image_id: pa.ChunkedArray, slot: pa.ChunkedArray) -> np.ndarray:
    """One number for the same slot of the same person, int64; where the person is not known, of the same image."""
    who = pc.coalesce(pc.cast(person, pa.string()), pc.binary_join_element_wise("image", image_id, " "))
    return hashes(pc.binary_join_element_wise(pc.fill_null(dataset, ""), who, slot, "\0")).view(np.int64)


def _rows(join: _Join, segments: str, folder: Path, counts: Counts, fits: Fits) -> Iterator[pa.Table]:
    """The samples, and beside them the masks: an image's rows are neighbours in SEGMENTS, whatever a batch of it cuts through."""
    columns = ["image_id", "slot", "caption_id", "noun_start", "noun_end", "mask", "status", "dataset", "person_id"]
    first = 0
    masks: list[bytes] = []
    held: list[dict[str, Any]] = []
    with pa.OSFile(str(folder / MASKS), "wb") as sink, pa.ipc.new_file(sink, _MASK) as writer:

        def flushed() -> pa.Table:
            writer.write_batch(pa.record_batch([pa.array(masks, pa.binary())], schema=_MASK))
            table = pa.Table.from_pylist(held, schema=EDIT_SAMPLES)
            masks.clear()
            held.clear()
            return table

        rows = (row for table in iter_table(segments, SEGMENTS, columns=columns, batch_rows=_BATCH) for row in _usable(join, table, counts))
        for _, own in groupby(rows, key=lambda row: row["image_id"]):
            by_caption: dict[str, list[dict[str, Any]]] = {}
            for row in own:
                by_caption.setdefault(row["caption_id"], []).append(row)
            for found in by_caption.values():
                if chosen := _readable(found, counts, fits):
                    held.append(_sample(chosen, first + len(masks)))
                    masks += [row["mask"] for row in chosen]
                    join.used += len(chosen)
            if len(held) >= _BATCH:
                first += len(masks)
                yield flushed()
        yield flushed()


def _sample(chosen: list[dict[str, Any]], first_mask: int) -> dict[str, Any]:
    segments = [
        {"start": row["noun_start"], "end": row["noun_end"], "mask": first_mask + place, "thing": row["thing"], "own": row["own"]}
        for place, row in enumerate(chosen)
    ]
    first = chosen[0]
    return {name: first[name] for name in ("text", "picture", "image_id", "caption_id")} | {"segments": segments}


def _usable(join: _Join, table: pa.Table, counts: Counts) -> Iterator[dict[str, Any]]:
    """Rows that can be used as far as their tables say, with their text, picture and thing; the others are counted."""
    counts.read += table.num_rows
    image_R = join.images.find(table["image_id"].combine_chunks())
    text_R = join.text_rows(pc.fill_null(table["caption_id"], "").combine_chunks())
    own_R = join.own_rows(table["image_id"].combine_chunks(), table["slot"].combine_chunks())
    thing_R = thing_keys(table["dataset"], table["person_id"], table["image_id"], table["slot"])
    texts = join.texts.take(np.maximum(text_R, 0))["text"].to_pylist() if len(join.texts) else [""] * table.num_rows
    for at, row in enumerate(table.to_pylist()):
        reason = why_unused(join, row, int(image_R[at]), int(text_R[at]))
        if reason is not None:
            counts.unused[reason] += 1
            continue
        found = {"text": texts[at], "picture": int(join.pictures.picture_N[image_R[at]])}
        yield {**row, **found, "thing": int(thing_R[at]), "own": int(own_R[at])}


def why_unused(join: _Join, row: dict[str, Any], image: int, text: int) -> str | None:
    """Why a segment cannot be learnt from, as far as the tables say; None if it can."""
    if row["status"] != "ok" or row["mask"] is None:
        return "no_segment"
    if image < 0:
        return "image_unknown"
    if not join.learnt_N[image]:
        return "other_split"
    if join.pictures.picture_N[image] < 0:
        return join.pictures.reasons[join.pictures.reason_N[image]]
    if row["caption_id"] is None or row["noun_start"] is None:
        return "no_caption"
    return "caption_unknown" if text < 0 else None


def _readable(rows: list[dict[str, Any]], counts: Counts, fits: Fits) -> list[dict[str, Any]]:
    """The things of a caption whose looks can be left out of it together, and whose nouns the model reads; the others are counted."""
    first = {row["noun_start"]: row for row in reversed(rows)}
    chosen = [first[start] for start in sorted(first)]
    counts.unused["noun_taken"] += len(rows) - len(chosen)
    bare = _bare(chosen)
    if bare is None:  # not all together: those that can be alone, and if that does not help, one
        able = [row for row in chosen if _bare([row]) is not None]
        able = able if _bare(able) is not None else able[:1]
        counts.unused["noun_not_read"] += len(chosen) - len(able)
        chosen, bare = able, _bare(able)
    if bare is None:
        return []
    read = [row for row, fit in zip(chosen, fits(bare.text, bare.nouns), strict=True) if fit]
    counts.unused["too_long"] += len(chosen) - len(read)
    return read


def _bare(rows: list[dict[str, Any]]) -> Substituted | None:
    """The rows' caption without the looks of their nouns; None if no rule can say it, or there is no row."""
    try:
        return substitute(rows[0]["text"], {row["noun_start"]: {} for row in rows}) if rows else None
    except CannotSubstituteError:
        return None
