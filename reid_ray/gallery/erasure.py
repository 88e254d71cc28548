"""Erasure: segments written anew without the items that must go, in the gallery and in its snapshots, and receipts of it.

Gone from every file of the gallery. Not reached: copies that somebody made elsewhere (backups, versioned buckets), blocks of a disk that
were freed and not yet overwritten, and models that were trained on the person.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reid_ray.errors import DataError
from reid_ray.gallery.depot.dead_rows import alive_rows, entry_of
from reid_ray.gallery.depot.interface import Depot, depot_of
from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.generations import living_batches, new_segment
from reid_ray.gallery.manifest import RECEIPTS, Erasure, Manifest, SegmentEntry
from reid_ray.gallery.nearest.live_part import LivePart
from reid_ray.gallery.sealed.id_lookup import id_hashes
from reid_ray.gallery.sealed.segment import Segment, SegmentFacts
from reid_ray.progress import Progress, unseen
from reid_ray.versions import check_json, numbered


def rewritten_without(
    depot: Depot, view: GalleryView, ids: set[str], progress: Progress = unseen
) -> tuple[list[SegmentEntry], dict[str, Manifest | None]]:
    """Segments of the current generation, and by name the manifest of each snapshot that changes, without those items.

    A row that lives in the current generation stays: somebody added the item again after it was erased.
    """
    wanted = sorted(ids)
    hash_N = id_hashes(wanted)
    snapshots = depot.snapshots()
    current = {part.source.facts.name: part for part in view.parts()[:-1] if isinstance(part.source, Segment)}
    renewed: dict[str, tuple[SegmentFacts | None, np.ndarray]] = {}  # by old name: the new segment, and which old rows it has
    looked_at = {entry.facts.name: (entry.facts, each) for each in [view.manifest, *snapshots.values()] for entry in each.segments}
    with progress("erase", sum(facts.rows for facts, _ in looked_at.values())) as bar:
        for facts, manifest in looked_at.values():
            part = current.get(facts.name)
            segment = part.source if part is not None else Segment.open(depot.segment(facts), facts)
            assert isinstance(segment, Segment)
            row_N = segment.rows_of(wanted, hash_N)
            row_N = row_N[row_N >= 0]
            if part is not None:
                row_N = row_N[~part.alive[row_N]]
            if len(row_N):
                kept = np.setdiff1d(np.arange(facts.rows), row_N)
                batches = living_batches([LivePart(segment, np.ones(facts.rows, np.bool_))], [kept])
                # A snapshot may be of another encoder, and so of another dimension.
                renewed[facts.name] = new_segment(depot, batches, len(kept), manifest, view.schema), kept
            bar.update(facts.rows)
    alive = {name: part.alive for name, part in current.items()}
    entries = _renewed(depot, view.manifest, renewed, alive)
    changed: dict[str, Manifest | None] = {}
    for name, manifest in snapshots.items():
        if any(entry.facts.name in renewed for entry in manifest.segments):
            told = {entry.facts.name: alive_rows(depot, entry.dead, entry.facts.rows) for entry in manifest.segments}
            segments = tuple(_renewed(depot, manifest, renewed, told))
            changed[name] = replace(manifest, segments=segments)
    return entries, changed


def _renewed(
    depot: Depot, manifest: Manifest, renewed: dict[str, tuple[SegmentFacts | None, np.ndarray]], alive: dict[str, np.ndarray]
) -> list[SegmentEntry]:
    entries = []
    for entry in manifest.segments:
        facts, kept = renewed.get(entry.facts.name, (entry.facts, np.arange(entry.facts.rows)))
        if facts is not None:
            entries.append(entry_of(depot, facts, alive[entry.facts.name][kept]))
    return entries


def write_receipts(depot: Depot, erasures: Sequence[Erasure], *, generation: int) -> None:
    """A receipt of each erasure: when it was asked for and carried out, and keyed digests of the ids, which say nothing without the key."""
    key = _key(depot)
    for erasure in erasures:
        receipt = {
            **numbered("receipt"),
            "request": erasure.request,
            "asked": _when(erasure.asked),
            "deadline": _when(erasure.deadline),
            "carried_out": _when(time.time()),
            "generation": generation,
            "items": len(erasure.ids),
            "digests": sorted(keyed_digest(key, each) for each in erasure.ids),
        }
        depot.write(f"{RECEIPTS}/{erasure.request}.json", (json.dumps(receipt, indent=2) + "\n").encode())


def erasure_name(request: str, asked: float | str) -> str:
    """What tells an erasure from another of the same name, while it waits (`asked` in seconds) and in its receipt (as that says it)."""
    return f"{asked if isinstance(asked, str) else _when(asked)} {request}"


def keyed_digest(key: bytes, item_id: str) -> str:
    """HMAC-SHA-256 of an id: who has the key can tell that an item was meant, nobody can tell the id from it."""
    return hmac.new(key, item_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def receipt_names(gallery: str | Path) -> list[str]:
    """Requests that were carried out, whose receipts are there."""
    depot = depot_of(gallery, private=True)
    try:
        return [name.removesuffix(".json") for name in depot.names(RECEIPTS) if name.endswith(".json")]
    finally:
        depot.close()


def is_receipt_of(gallery: str | Path, receipt: Mapping[str, Any], ids: Collection[str]) -> bool:
    """Whether a receipt is that of an erasure of exactly these items."""
    return bool(set(digests_of(gallery, ids)) == set(receipt["digests"]))


def digests_of(gallery: str | Path, ids: Collection[str]) -> dict[str, str]:
    """Each id by the keyed digest that a receipt of it has; nothing if there never was a receipt."""
    depot = depot_of(gallery, private=True)
    try:
        key = depot.read(f"{RECEIPTS}/.key")
    except FileNotFoundError:
        return {}
    finally:
        depot.close()
    return {keyed_digest(key, each): each for each in ids}


def read_receipt(gallery: str | Path, request: str) -> dict[str, Any] | None:
    """The receipt of a request, None while it is not carried out.

    Raises:
        DataError: it is damaged, or of a newer version.
    """
    depot = depot_of(gallery, private=True)
    origin = f"{depot}/{RECEIPTS}/{request}.json"
    try:
        receipt = json.loads(depot.read(f"{RECEIPTS}/{request}.json"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{origin}: cannot be read as JSON ({error}); restore it from a copy") from None
    if not isinstance(receipt, dict):
        raise DataError(f"{origin}: is no receipt; restore it from a copy")
    check_json("receipt", receipt, origin=origin)
    return receipt


def _key(depot: Depot) -> bytes:
    name = f"{RECEIPTS}/.key"
    try:
        return depot.read(name)
    except FileNotFoundError:
        depot.write(name, secrets.token_bytes(32), private=True)
    return depot.read(name)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
