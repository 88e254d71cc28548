"""Verification of a whole gallery: every file against its digest, every vector, every reference of the manifests."""

from __future__ import annotations

from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.gallery.depot.dead_rows import alive_rows
from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.sealed.segment import Segment


def faults_of(folder: str | Path) -> list[str]:
    """What is wrong with a gallery, a sentence each; none if it is whole. Reads every byte.

    Raises:
        DataError: no gallery is there.
    """
    depot = depot_of(folder, private=True)  # what lies at a store is looked at, not an older copy of it
    current = depot.manifest(depot.current())
    found: list[str] = []
    looked_at: set[str] = set()
    for manifest in [current, *depot.snapshots().values()]:
        for entry in manifest.segments:
            try:
                alive_rows(depot, entry.dead, entry.facts.rows)
                if entry.facts.name not in looked_at:
                    segment = Segment.open(depot.segment(entry.facts), entry.facts)
                    found += segment.faults()
                    dim = segment.vectors.shape[1]
                    if dim != manifest.dim:
                        found.append(f"{segment.folder}: has vectors of dimension {dim}, not {manifest.dim}; restore it from a copy")
                    segment.close()
            except (DataError, FileNotFoundError) as error:
                found.append(str(error) if isinstance(error, DataError) else f"{error}: is missing; restore it from a copy")
            looked_at.add(entry.facts.name)
    depot.close()
    return found
