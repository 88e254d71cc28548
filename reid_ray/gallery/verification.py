"""Verification of a whole gallery: every file against its digest, every vector, every reference of the manifests."""

from __future__ import annotations

from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.gallery.gallery_view import alive_rows
from reid_ray.gallery.generations import snapshot_manifests
from reid_ray.gallery.manifest import GENERATIONS, SEGMENTS, current_name, read_manifest
from reid_ray.gallery.sealed.segment import Segment


def faults_of(folder: str | Path) -> list[str]:
    """What is wrong with a gallery, a sentence each; none if it is whole. Reads every byte.

    Raises:
        DataError: the folder holds no gallery.
    """
    folder = Path(folder)
    current = read_manifest(folder / GENERATIONS / current_name(folder))
    found: list[str] = []
    looked_at: set[str] = set()
    for manifest in [current, *snapshot_manifests(folder).values()]:
        for entry in manifest.segments:
            try:
                alive_rows(folder, entry.dead, entry.facts.rows)
                if entry.facts.name not in looked_at:
                    segment = Segment.open(folder / SEGMENTS / entry.facts.name, entry.facts)
                    found += segment.faults()
                    segment.close()
            except (DataError, FileNotFoundError) as error:
                found.append(str(error) if isinstance(error, DataError) else f"{error}: is missing; restore it from a copy")
            looked_at.add(entry.facts.name)
    return found
