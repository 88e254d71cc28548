"""Exposure: what a model's weights have seen of the images and identities that a score is of.

A score on people that the weights were trained on, or chosen by, says nothing about others. Training writes beside the weights which
images it used (SEEN); here they are compared with the gallery, image by image (content hash) and identity by identity. Knows tables; no
models or scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reid_ray.model.pretrained import split_encoder
from reid_ray.records import IMAGES, SEEN, SEEN_FILE, content_hash64
from reid_ray.storage import iter_table, read_table

# Numbered anew in every set, so that equal numbers are not the same person.
_RENUMBERED = frozenset({"synthetic"})


def exposure(encoder: str | None, items: pa.Table, images: str | None, *, split: str | None) -> dict[str, Any]:
    """What training, and the choice of weights, had of a gallery.

    Args:
        encoder: as the evaluate job is given it.
        items: of the gallery: columns dataset and person_id.
        images: the gallery's IMAGES table, whose content hashes are compared; None compares identities alone.
        split: of that table; None takes all.

    Returns:
        {"recorded": False} where the weights do not tell. Else also {"images": int, "identities": int, "train": {"images": int,
        "identities": int}, "val": {...}}: how many of the gallery's there are, and how many of them have that role.
    """
    path = None if encoder is None else split_encoder(encoder)[0] / SEEN_FILE
    if path is None or not Path(path).is_file():
        return {"recorded": False}
    seen = read_table(path, SEEN)
    content = _contents(images, split) if images is not None else pa.chunked_array([[]], pa.int64())
    people = _people(items)
    found: dict[str, Any] = {"recorded": True, "images": len(content), "identities": len(people)}
    for role in ("train", "val"):
        of_role = seen.filter(pc.equal(seen["role"], role))
        shared = pc.sum(pc.is_in(content, value_set=of_role["content"].drop_null())).as_py() or 0
        found[role] = {"images": shared, "identities": len(people & _people(of_role))}
    return found


def shared_with(role: str, found: dict[str, Any]) -> bool | None:
    """Whether the gallery holds an image or identity of `role` (train or val); None where that is not recorded."""
    return bool(found[role]["images"] or found[role]["identities"]) if found["recorded"] else None


def exposure_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The exposure in a result.json; one of an older version does not tell."""
    return result.get("exposure", {"recorded": False})


def exposure_sentence(found: dict[str, Any]) -> str:
    """What a reader must know before the numbers, in one or two sentences."""
    if not found["recorded"]:
        return "Which images the weights have seen is not recorded beside them, so whether these are among them is unknown."
    shared = [
        f"{found[role]['images']} of {found['images']} images and {found[role]['identities']} of {found['identities']} identities {did}"
        for role, did in (("train", "were trained on"), ("val", "chose the weights"))
        if shared_with(role, found)
    ]
    if not shared:
        return f"None of the gallery's {found['images']} images and {found['identities']} identities was trained on or chose the weights."
    return f"WARNING: of the gallery, {', and '.join(shared)}: these numbers are not those of unseen people."


def _contents(images: str, split: str | None) -> pa.ChunkedArray:
    """Distinct content hashes of a table's split."""
    parts = [pa.array([], pa.int64())]
    for table in iter_table(images, IMAGES, columns=["image_sha256", "split"], batch_rows=65_536):
        here = table if split is None else table.filter(pc.fill_null(pc.equal(table["split"], split), False))
        parts += content_hash64(here["image_sha256"]).chunks
    return pa.chunked_array([pc.unique(pa.chunked_array(parts)).drop_null()])


def _people(table: pa.Table) -> set[tuple[str, int]]:
    """Identities whose number means the same in every table of their data set."""
    known = table.select(["dataset", "person_id"]).filter(pc.and_(pc.is_valid(table["dataset"]), pc.is_valid(table["person_id"])))
    rows = known.group_by(["dataset", "person_id"]).aggregate([]).to_pylist()
    return {(row["dataset"], row["person_id"]) for row in rows if row["dataset"] not in _RENUMBERED and row["person_id"] >= 0}
