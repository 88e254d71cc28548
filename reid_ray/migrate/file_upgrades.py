"""File-level format migration: finds the files of a folder that have a format number, and rewrites each in today's format.

Knows which file is of which kind, JSON, YAML and Parquet; not where the new files go. Files without a format (weights, vectors, pictures,
arrays) belong to the manifest or the facts beside them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from reid_ray.errors import DataError
from reid_ray.migrate.format_steps import migrated_json, migrated_table
from reid_ray.storage import MANIFEST, read_object, write_json
from reid_ray.storage.listing import files_below
from reid_ray.versions import FIELD, manifest_kind, number_of, numbered, refuse_newer, stamp, table_format

REMEDY = "make it again"  # of a file that cannot be read
NOISE_FORMAT = "noise.json"
# A JSON file of a fixed name is of its kind if one of these lies beside it; other people's files may have such names too.
_BESIDE = {
    "result.json": ("evaluation", ("queries.parquet",)),
    "calibration.json": ("calibration", ("pairs.jsonl",)),
    "run.json": ("run", ("data",)),
    "facts.json": ("prepared", ("samples.arrow", "validation.arrow")),
    "templates.yaml": ("templates", ("report.json",)),
}
# Which table lies where in an output that was written before tables said it themselves.
_TABLE_AT = {
    **{name: name for name in ("images", "captions", "failures", "embeddings", "hits", "noise")},
    "failed": "embeddings",
    "queries.parquet": "queries",
}


@dataclass(frozen=True)
class VersionedFile:
    """A file with a format number: where it lies in the folder, its kind and its number."""

    name: str
    kind: str
    number: int

    @property
    def older(self) -> bool:
        """Whether it is of an older format."""
        return self.number < number_of(self.kind)


def versioned_files(folder: Path) -> list[VersionedFile]:
    """Every file in `folder` that has a format, checkpoints' manifests last: they know the sizes of other files.

    Raises:
        DataError: a file is of a newer format, or cannot be read.
    """
    found = [versioned for file in _files(folder) for versioned in _versioned(folder, file)]
    return sorted(found, key=lambda versioned: (versioned.kind == "checkpoint", versioned.name))


def write_current(versioned: VersionedFile, source: Path, target: Path) -> None:
    """Write the file `versioned` of folder `source` into folder `target`, in today's format."""
    before, after = source / versioned.name, target / versioned.name
    if versioned.name.endswith(".parquet"):
        _write_table(versioned, before, after)
    elif versioned.kind == "templates":
        value = migrated_json(versioned.kind, _read_yaml(before, _texts), versioned.number)
        text = yaml.safe_dump(
            {**numbered(versioned.kind), **{name: each for name, each in value.items() if name != FIELD}},
            sort_keys=False,
            allow_unicode=True,
            width=200,
        )
        after.write_text(text, encoding="utf-8")
    else:
        value = migrated_json(versioned.kind, read_object(before, remedy=REMEDY) if before.is_file() else {}, versioned.number)
        if versioned.kind == "checkpoint":
            value = {**value, "files": dict(sorted((name, size) for name, size in files_below(after.parent) if name != MANIFEST))}
        write_json(after, {**numbered(versioned.kind), **{name: each for name, each in value.items() if name != FIELD}})
    if before.is_file():
        shutil.copymode(before, after)


def _versioned(folder: Path, file: Path) -> Iterator[VersionedFile]:
    """What `file` says of its own format; nothing if it has none. The first part of a noise store speaks for the store."""
    name = file.relative_to(folder).as_posix()
    kind: str | None
    number: Any
    if file.suffix == ".parquet":
        kind, number = _table_format(file, name)
    elif file.name == MANIFEST:
        value = read_object(file, remedy=REMEDY)
        kind, number = manifest_kind(value), value.get(FIELD)
    elif file.name in _BESIDE and any((file.parent / beside).exists() for beside in _BESIDE[file.name][1]):
        value = _read_yaml(file, yaml.safe_load) if file.suffix == ".yaml" else read_object(file, remedy=REMEDY)
        kind, number = _BESIDE[file.name][0], value.get(FIELD)
    elif file.name.startswith("noise-00000-of-") and file.suffix == ".npy":
        name = file.with_name(NOISE_FORMAT).relative_to(folder).as_posix()
        kind, number = "noise_levels", read_object(folder / name, remedy=REMEDY).get(FIELD) if (folder / name).is_file() else 0
    else:
        return
    if kind is not None:
        yield VersionedFile(name, kind, refuse_newer(kind, number, origin=folder / name))


def _table_format(file: Path, name: str) -> tuple[str | None, int]:
    try:
        kind, number = table_format(pq.read_schema(file).metadata, origin=file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: is not a readable Parquet file ({error}); make it again") from None
    if kind is not None:
        return kind, number
    places = [_TABLE_AT[part] for part in Path(name).parts if part in _TABLE_AT]
    return (places[-1], 0) if places else (None, 0)


def _write_table(versioned: VersionedFile, before: Path, after: Path) -> None:
    """Row group by row group, compressed as before; a part is some 64 MiB, so a row group is no more."""
    with pq.ParquetFile(before) as parquet:
        groups = range(parquet.metadata.num_row_groups)
        compression = parquet.metadata.row_group(0).column(0).compression.lower() if groups else "zstd"
        metadata = {**(parquet.schema_arrow.metadata or {}), **stamp(versioned.kind)}
        empty = migrated_table(versioned.kind, parquet.schema_arrow.empty_table(), versioned.number)
        with pq.ParquetWriter(after, empty.schema.with_metadata(metadata), compression=compression) as writer:
            for group in groups:
                table = migrated_table(versioned.kind, parquet.read_row_group(group), versioned.number)
                writer.write_table(table.replace_schema_metadata(metadata), row_group_size=max(1, table.num_rows))


def _read_yaml(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        return dict(parse(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: cannot be read ({error}); {REMEDY}") from None


def _texts(text: str) -> Any:
    """YAML whose values all stay text: an id such as 0012 is none of a number."""
    return yaml.load(text, Loader=yaml.BaseLoader)


def _files(folder: Path) -> Iterator[Path]:
    """All files below, links to folders not followed."""
    for parent, subfolders, names in os.walk(folder):
        subfolders.sort()
        yield from (Path(parent, name) for name in sorted(names))
