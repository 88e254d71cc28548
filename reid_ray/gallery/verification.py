"""Verification of a whole gallery: every file against its digest, every vector, every reference of the manifests."""

from __future__ import annotations

from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.gallery.depot.dead_rows import alive_rows
from reid_ray.gallery.depot.interface import depot_of
from reid_ray.gallery.sealed.segment import Segment
from reid_ray.progress import Progress, unseen


def faults_of(folder: str | Path, *, progress: Progress = unseen) -> list[str]:
    """What is wrong with a gallery, a sentence each; none if it is whole. Reads every byte.

    Args:
        folder: the gallery's folder or address.
        progress: shown how many items were looked at.

    Raises:
        DataError: no gallery is there.
    """
    depot = depot_of(folder, private=True)  # what lies at a store is looked at, not an older copy of it
    current = depot.manifest(depot.current())
    found: list[str] = []
    looked_at: set[str] = set()
    manifests = [current, *depot.snapshots().values()]
    named = [(manifest, entry) for manifest in manifests for entry in manifest.segments]
    with progress("verify", sum({entry.facts.name: entry.facts.rows for _, entry in named}.values())) as bar:
        for manifest, entry in named:
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
            if entry.facts.name not in looked_at:
                bar.update(entry.facts.rows)
            looked_at.add(entry.facts.name)
    depot.close()
    return found
