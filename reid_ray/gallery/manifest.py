"""The manifest of a generation: which segments make up the gallery, which of their rows are dead, and which log comes after them.

CURRENT names the manifest that counts and is swapped atomically; a manifest never changes. What no manifest in use names is litter of a
killed writer. Knows names and JSON; not what is in a segment.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from reid_ray.errors import DataError
from reid_ray.gallery.config import GalleryConfig
from reid_ray.gallery.items import json_of_schema, schema_of_json
from reid_ray.gallery.sealed.segment import SegmentFacts
from reid_ray.storage.files import read_object, write_durably
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


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest durably: whole or not at all."""
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
    text = json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
    write_durably(path, lambda hidden: hidden.write_text(text, encoding="utf-8"))


def read_manifest(path: Path) -> Manifest:
    """A manifest.

    Raises:
        DataError: it is damaged, or of a newer version.
        FileNotFoundError: it is gone: there is a newer generation.
    """
    try:
        value = read_object(path, remedy="restore the gallery from a snapshot or a copy")
    except DataError:
        if not path.exists():
            raise FileNotFoundError(path) from None
        raise
    check_json("gallery", value, origin=path)
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
        raise DataError(f"{path}: is no manifest of a gallery ({error!r}); restore the gallery from a snapshot or a copy") from None


def current_name(folder: Path) -> str:
    """The name of the manifest that counts.

    Raises:
        DataError: the folder holds no gallery.
    """
    try:
        name = (folder / CURRENT).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{folder}: holds no gallery (no file {CURRENT}); make one with `reid-ray gallery create`") from None
    if os.sep in name or not name.endswith(".json"):
        raise DataError(f"{folder / CURRENT}: names {name[:60]!r}, which is no manifest; restore the gallery from a snapshot or a copy")
    return name


def swap_current(folder: Path, name: str) -> None:
    """Make the manifest `name` the one that counts, durably and in one step."""
    write_durably(folder / CURRENT, lambda hidden: hidden.write_text(name + "\n", encoding="ascii"))
