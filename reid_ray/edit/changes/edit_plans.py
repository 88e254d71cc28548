"""The plan of a run as a table: SEGMENTS, CAPTIONS and REFERENCES in, one PLANS row for each edit that is to be made out.

Reads the tables in streams and keeps what it plans with: about 2 KB for an edit, masks included, and of the bank ids and words. What
cannot be edited is counted with its reason. Makes no picture.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.attributes.lexicon import Values
from reid_ray.caption.ledger.content_keys import falls_in_share
from reid_ray.caption.ledger.row_keys import key_of
from reid_ray.caption.ledger.write_ahead_log import KEYS
from reid_ray.edit.changes.change_draw import DrawnEdit, LinkedSegment, SlotChange, draw_edit
from reid_ray.edit.changes.looks import LooksIndex, values_of
from reid_ray.edit.changes.new_person import is_new, who_is
from reid_ray.edit.config import EditJob
from reid_ray.edit.edit_captions import CaptionByModel
from reid_ray.edit.edit_rows import PLANS, EditRecipe
from reid_ray.errors import DataError
from reid_ray.records import CAPTIONS, IDENTITY_COLUMNS, REFERENCES, SEGMENTS, table_of
from reid_ray.storage import iter_table

_TRAINS = ("train", None)  # splits that references may come from; null is an external folder, or a set without splits


@dataclass
class PlannedRun:
    """What a run is to do.

    table: PLANS, image by image. refused: edits of images that are not planned, by reason. not_in_share: images that are not asked for.
    bank: references by outcome. looks: looks of the bank for each slot.
    """

    table: pa.Table
    not_in_share: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    bank: Counter[str] = field(default_factory=Counter)
    looks: dict[str, int] = field(default_factory=dict)


def plan_edits(config: EditJob, recipe: EditRecipe, captions: CaptionByModel | None, listed: np.ndarray | None = None) -> PlannedRun:
    """Draw the edit of every image that the segments tell of.

    Args:
        config: tables and changes.
        recipe: of the pictures.
        captions: of a language model; None: none is asked.
        listed: image_key of each of the images, sorted; what the segments tell of others is passed over. None: they are not known.

    Raises:
        DataError: a table is missing or of another kind, no segment is linked to a caption, or the bank has nothing that may be used.
    """
    bank, outcomes = read_bank(config.references)
    if not bank.slots:
        raise DataError(
            f"{config.references}: none of its {outcomes.total()} references can be used ({_in_words(outcomes)}); give the references/ of "
            "a references job over pictures of split train"
        )
    found, left_out = _read_segments(config, listed)
    run = PlannedRun(PLANS.empty_table(), left_out, bank=outcomes, looks=bank.slots)
    if not any(image.segments for image in found.values()):
        raise DataError(f"{config.segments}: no segment is linked to a noun of a caption; run the segment job with captions")
    texts = _texts(config, {each.caption_id for image in found.values() for each in image.segments})
    scribe = _Scribe(config, texts, recipe, captions)
    rows: list[dict[str, Any]] = []
    tables = []
    for image in found.values():
        for number in range(config.changes.per_image):
            planned = _planned(image, number, texts, bank, config)
            if isinstance(planned, str):
                run.refused[planned] += 1
                continue
            rows.append(scribe.row(image, planned, number))
        if len(rows) >= 10_000:
            tables.append(table_of(PLANS, rows))
            rows = []
    run.table = pa.concat_tables([*tables, table_of(PLANS, rows)]).combine_chunks()
    return run


@dataclass
class _Image:
    """An image as SEGMENTS tells of it."""

    row: Mapping[str, Any]  # image_id, image_sha256 and the identity columns
    segments: list[LinkedSegment] = field(default_factory=list)
    masks: list[bytes] = field(default_factory=list)


def read_bank(path: str) -> tuple[LooksIndex, Counter[str]]:
    """The references that may be used, without their pictures, and how many there are: usable, or by why they are not."""
    bank, usable, left_out = LooksIndex(), 0, Counter[str]()
    columns = ["reference_id", "slot", "values", "status", "split", "synthetic", "source"]
    for table in iter_table(path, REFERENCES, columns=columns):
        for row in table.to_pylist():
            if row["status"] != "ok":
                left_out[row["status"]] += 1
            elif row["split"] not in _TRAINS:
                left_out["not_for_training"] += 1
            elif not bank.add(row["reference_id"], row["slot"], row["values"]):
                left_out["look_unknown"] += 1
            else:
                usable += 1
    return bank, Counter(usable=usable) + left_out


def _read_segments(config: EditJob, listed: np.ndarray | None) -> tuple[dict[str, _Image], int]:
    """(image_id -> what is on it, in the table's order; how many images are not in the share); of images.split, if it is given."""
    found: dict[str, _Image] = {}
    left_out: set[int] = set()
    columns = [name for name in SEGMENTS.names if name not in ("box", "source", "revision", "reason", "noun")]
    for table in iter_table(config.segments, SEGMENTS, columns=columns):
        for row in table.to_pylist():
            if config.images.split is not None and row["split"] != config.images.split:
                continue
            image = found.get(row["image_id"])
            if image is None:
                if listed is not None and not len(listed_at(row["image_id"], listed)):
                    continue
                if not falls_in_share(row["image_id"], config.changes.share):
                    left_out.add(hash(row["image_id"]))
                    continue
                who = {name: row[name] for name in ("image_id", "image_sha256", *IDENTITY_COLUMNS)}
                image = found[row["image_id"]] = _Image(who)
            if row["status"] == "ok" and row["caption_id"] is not None and row["noun_start"] is not None:
                image.segments.append(
                    LinkedSegment(row["slot"], row["caption_id"], row["noun_start"], row["noun_end"], row["area"], len(image.masks))
                )
                image.masks.append(row["mask"])
    return found, len(left_out)


def _texts(config: EditJob, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """caption_id -> (text, kind) of the captions that segments are linked to."""
    ids = pa.array(sorted(wanted), pa.string())
    texts: dict[str, tuple[str, str]] = {}
    for table in iter_table(config.captions, CAPTIONS, columns=["caption_id", "text", "kind", "status"]):
        usable = table.filter(pc.and_(pc.is_in(table["caption_id"], ids), pc.equal(table["status"], "ok")))
        for row in usable.to_pylist():
            if row["text"] is not None:
                texts[row["caption_id"]] = (row["text"], row["kind"])
    return texts


def _planned(image: _Image, number: int, texts: Mapping[str, tuple[str, str]], bank: LooksIndex, config: EditJob) -> DrawnEdit | str:
    who = image.row
    if (who["split"] not in _TRAINS) or who["synthetic"] or is_new(who["person_id"]):
        why = "not_for_training" if who["split"] not in _TRAINS else "edited_already"
        return why
    here = {each.caption_id: texts[each.caption_id][0] for each in image.segments if each.caption_id in texts}
    person = who_is(who["dataset"], who["person_id"], who["image_id"])
    return draw_edit(person, image.segments, here, bank, config.changes, number=number)


@dataclass(frozen=True)
class _Scribe:
    """Writes drawn edits down as rows of PLANS, with their keys."""

    config: EditJob
    texts: Mapping[str, tuple[str, str]]
    recipe: EditRecipe
    captions: CaptionByModel | None

    def row(self, image: _Image, drawn: DrawnEdit, number: int) -> dict[str, Any]:
        """The row of an image's `number`-th edit."""
        who, seed = image.row, self.config.changes.seed
        original, kind = self.texts[drawn.caption_id]
        changes = [_change(each, image.masks[each.segment.row]) for each in drawn.changes]
        told = [[each["slot"], each["mask_sha256"], each["noun_start"], each["new"], each["references"]] for each in changes]
        edit_id = self.recipe.edit_id([who["image_id"], who["image_sha256"], original], told, number=number, seed=seed)
        row = {
            **who,
            "key": self.recipe.key(edit_id),
            "edit_id": edit_id,
            "image_key": image_key(who["image_id"]),
            "who": who_is(who["dataset"], who["person_id"], who["image_id"]),
            "caption_kind": kind,
            "original": original,
            "text": drawn.text,
            "changes": changes,
        }
        if self.captions is not None and falls_in_share(edit_id, self.config.rewriter.share):
            row["caption_id"] = self.captions.caption_id(edit_id, original, drawn.text)
            row["caption_key"] = self.captions.key(row["caption_id"], row["key"])
        return row


def listed_at(image_id: str, keys: np.ndarray) -> range:
    """Where an image lies among sorted image keys."""
    (wanted,) = np.array([image_key(image_id)], KEYS)
    return range(int(np.searchsorted(keys, wanted)), int(np.searchsorted(keys, wanted, side="right")))


def image_key(image_id: str) -> bytes:
    """What an image's edits are found by."""
    return key_of("image", image_id)


def _change(change: SlotChange, mask: bytes) -> dict[str, Any]:
    segment = change.segment
    return {
        "slot": segment.slot,
        "noun_start": segment.noun_start,
        "noun_end": segment.noun_end,
        "mask": mask,
        "mask_sha256": sha256(mask).hexdigest(),
        "old": json.dumps(values_of(segment.slot, {facet: _word(values) for facet, values in change.old.items()})),
        "new": json.dumps(values_of(segment.slot, change.look)),
        "references": list(change.references),
    }


def _word(values: Values) -> str:
    return "/".join(sorted(values))


def _in_words(outcomes: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items())) or "it has no row"


def used_references(path: str, plans: pa.Table) -> pa.Table:
    """reference_id and image of the references that some plan names, each once."""
    wanted = pc.unique(pc.list_flatten(pc.struct_field(pc.list_flatten(plans["changes"]), "references")))
    seen: set[str] = set()
    tables = []
    for table in iter_table(path, REFERENCES, columns=["reference_id", "image", "status"]):
        named = table.filter(pc.and_(pc.is_in(table["reference_id"], wanted), pc.equal(table["status"], "ok")))
        first = {name: row for row, name in reversed(list(enumerate(named["reference_id"].to_pylist()))) if name not in seen}
        seen.update(first)
        tables.append(named.select(["reference_id", "image"]).take(pa.array(sorted(first.values()), pa.int64())))
    empty = pa.schema([("reference_id", pa.string()), ("image", pa.binary())]).empty_table()
    return pa.concat_tables([empty, *tables], promote_options="permissive")
