"""Erasure: segments written anew without the items that must go, in the gallery and in its snapshots, and receipts of it.

Gone from every file of the gallery. Not reached: copies that somebody made elsewhere (backups, versioned buckets), blocks of a disk that
were freed and not yet overwritten, and models that were trained on the person.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reid_ray.gallery.gallery_view import GalleryView, LivePart, alive_rows
from reid_ray.gallery.generations import entry_of, living_batches, new_segment, snapshot_manifests
from reid_ray.gallery.manifest import SEGMENTS, SNAPSHOTS, Erasure, Manifest, SegmentEntry
from reid_ray.gallery.sealed.id_lookup import id_hashes
from reid_ray.gallery.sealed.segment import Segment, SegmentFacts
from reid_ray.storage.files import read_object, write_durably, write_json
from reid_ray.versions import check_json, numbered

_KEY_FILE = ".key"


def rewritten_without(folder: Path, view: GalleryView, ids: set[str]) -> tuple[list[SegmentEntry], list[tuple[Path, Manifest]]]:
    """Segments of the current generation, and (path, manifest) of each snapshot that changes, without those items.

    A row that lives in the current generation stays: somebody added the item again after it was erased.
    """
    wanted = sorted(ids)
    hash_N = id_hashes(wanted)
    snapshots = snapshot_manifests(folder)
    current = {part.source.facts.name: part for part in view.parts()[:-1] if isinstance(part.source, Segment)}
    renewed: dict[str, tuple[SegmentFacts | None, np.ndarray]] = {}  # by old name: the new segment, and which old rows it has
    for facts in {
        entry.facts.name: entry.facts for manifest in [view.manifest, *snapshots.values()] for entry in manifest.segments
    }.values():
        part = current.get(facts.name)
        segment = part.source if part is not None else Segment.open(folder / SEGMENTS / facts.name, facts)
        assert isinstance(segment, Segment)
        row_N = segment.rows_of(wanted, hash_N)
        row_N = row_N[row_N >= 0]
        if part is not None:
            row_N = row_N[~part.alive[row_N]]
        if len(row_N):
            kept = np.setdiff1d(np.arange(facts.rows), row_N)
            batches = living_batches([LivePart(segment, np.ones(facts.rows, np.bool_))], [kept])
            renewed[facts.name] = new_segment(folder, batches, len(kept), view.manifest, view.schema), kept
    alive = {name: part.alive for name, part in current.items()}
    entries = _renewed(folder, view.manifest, renewed, alive)
    changed = []
    for name, manifest in snapshots.items():
        if any(entry.facts.name in renewed for entry in manifest.segments):
            told = {entry.facts.name: alive_rows(folder, entry.dead, entry.facts.rows) for entry in manifest.segments}
            segments = tuple(_renewed(folder, manifest, renewed, told))
            changed.append((folder / SNAPSHOTS / f"{name}.json", replace(manifest, segments=segments)))
    return entries, changed


def _renewed(
    folder: Path, manifest: Manifest, renewed: dict[str, tuple[SegmentFacts | None, np.ndarray]], alive: dict[str, np.ndarray]
) -> list[SegmentEntry]:
    entries = []
    for entry in manifest.segments:
        facts, kept = renewed.get(entry.facts.name, (entry.facts, np.arange(entry.facts.rows)))
        if facts is not None:
            entries.append(entry_of(folder, facts, alive[entry.facts.name][kept]))
    return entries


def write_receipts(folder: Path, erasures: Sequence[Erasure], *, generation: int) -> None:
    """A receipt of each erasure: when it was asked for and carried out, and keyed digests of the ids, which say nothing without the key."""
    key = _key(folder)
    for erasure in erasures:
        write_json(
            folder / f"{erasure.request}.json",
            {
                **numbered("receipt"),
                "request": erasure.request,
                "asked": _when(erasure.asked),
                "deadline": _when(erasure.deadline),
                "carried_out": _when(time.time()),
                "generation": generation,
                "items": len(erasure.ids),
                "digests": sorted(keyed_digest(key, each) for each in erasure.ids),
            },
        )


def keyed_digest(key: bytes, item_id: str) -> str:
    """HMAC-SHA-256 of an id: who has the key can tell that an item was meant, nobody can tell the id from it."""
    return hmac.new(key, item_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def read_receipt(folder: Path, request: str) -> dict[str, object] | None:
    """The receipt of a request, None while it is not carried out."""
    path = folder / f"{request}.json"
    if not path.exists():
        return None
    receipt = read_object(path, remedy="restore it from a copy")
    check_json("receipt", receipt, origin=path)
    return receipt


def _key(folder: Path) -> bytes:
    path = folder / _KEY_FILE
    if not path.exists():

        def write(hidden: Path) -> None:
            descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))

        write_durably(path, write)
    return path.read_bytes()


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
