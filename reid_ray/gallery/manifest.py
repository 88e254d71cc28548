"""The manifest of a generation: which segments make up the gallery, which of their rows are dead, and which log comes after them.

A manifest never changes; which one counts is swapped atomically (depot/). What no manifest in use names is litter of a killed writer.
Knows names and JSON; not where it lies, or what is in a segment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from reid_ray.errors import DataError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.items import json_of_schema, schema_of_json
from reid_ray.gallery.sealed.segment import SegmentFacts
from reid_ray.versions import check_json, numbered

CURRENT, GENERATIONS, SEGMENTS, DEAD, LOGS, SNAPSHOTS, RECEIPTS = (
    "CURRENT",
    "generations",
    "segments",
    "dead",
    "log",
    "snapshots",
    "receipts",
)
FOLDERS = (GENERATIONS, SEGMENTS, DEAD, LOGS, SNAPSHOTS, RECEIPTS)


@dataclass(frozen=True)
class Erasure:
    """Items that were erased and may still lie in files: their ids, and when they must be gone (seconds since 1970)."""

    request: str
    ids: tuple[str, ...]
    asked: float
    deadline: float


@dataclass(frozen=True)
class SegmentEntry:
    """A segment in a generation; `dead` names the file of its dead rows, None if all live."""

    facts: SegmentFacts
    dead: str | None


@dataclass(frozen=True)
class Manifest:
    """One generation.

    number: ascends by one with every swap.
    dim, encoder: of the vectors; `encoder` is the fingerprint of what made them.
    schema: columns of the items.
    segments: oldest first.
    log: the file that holds what was written since.
    erasures: asked for and not yet carried out.
    """

    number: int
    dim: int
    encoder: str
    config: GalleryConfig
    schema: pa.Schema
    segments: tuple[SegmentEntry, ...]
    log: str
    erasures: tuple[Erasure, ...]

    def next(self, **changes: Any) -> Manifest:
        """The generation after this one."""
        return replace(self, number=self.number + 1, **changes)


def manifest_name(number: int) -> str:
    """The file of a generation."""
    return f"{number:08d}.json"


def manifest_bytes(manifest: Manifest) -> bytes:
    """A manifest as JSON."""
    value = {
        **numbered("gallery"),
        "number": manifest.number,
        "dim": manifest.dim,
        "encoder": manifest.encoder,
        "config": manifest.config.model_dump(mode="json"),
        "columns": json_of_schema(manifest.schema),
        "segments": [
            {
                "name": each.facts.name,
                "rows": each.facts.rows,
                "dead": each.dead,
                "files": {k: list(v) for k, v in each.facts.files.items()},
            }
            for each in manifest.segments
        ],
        "log": manifest.log,
        "erasures": [asdict(each) for each in manifest.erasures],
    }
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()


def manifest_of(data: bytes, *, origin: str) -> Manifest:
    """A manifest from JSON; `origin` is where it lies.

    Raises:
        DataError: it is damaged, or of a newer version.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin}: cannot be read as JSON ({error}); restore the gallery from a snapshot or a copy") from None
    if not isinstance(value, dict):
        raise DataError(f"{origin}: is no manifest of a gallery; restore the gallery from a snapshot or a copy")
    check_json("gallery", value, origin=origin)
    try:
        return Manifest(
            number=value["number"],
            dim=value["dim"],
            encoder=value["encoder"],
            config=GalleryConfig.model_validate(value["config"]),
            schema=schema_of_json(value["columns"]),
            segments=tuple(
                SegmentEntry(SegmentFacts(each["name"], each["rows"], {k: (v[0], v[1]) for k, v in each["files"].items()}), each["dead"])
                for each in value["segments"]
            ),
            log=value["log"],
            erasures=tuple(Erasure(each["request"], tuple(each["ids"]), each["asked"], each["deadline"]) for each in value["erasures"]),
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(f"{origin}: is no manifest of a gallery ({error!r}); restore the gallery from a snapshot or a copy") from None


def needed_names(manifests: Sequence[Manifest]) -> dict[str, set[str]]:
    """Which segments and files of dead rows some manifests name."""
    entries = [entry for manifest in manifests for entry in manifest.segments]
    return {SEGMENTS: {entry.facts.name for entry in entries}, DEAD: {entry.dead for entry in entries if entry.dead is not None}}
