"""The pictures that `reid-ray service add` sends: which there are, what is known of each, and in which portions they go.

Knows files and lines of JSON; not the service.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_ray.data.images import is_image_name
from reid_ray.errors import DataError

_PORTION, _PORTION_BYTES = 1_000, 256 << 20  # pictures of one job


def pictures_at(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """(name, file) of pictures, and of those in folders, which are named from there.

    Raises:
        DataError: a path is not there.
    """
    for path in paths:
        if path.is_dir():
            for file in sorted(each for each in path.rglob("*") if is_image_name(each.name) and each.is_file()):
                yield file.relative_to(path).as_posix(), file
        elif path.is_file():
            yield path.name, path
        else:
            raise DataError(f"{path}: is not there; name pictures, folders of them, or a Parquet table")


def known_items(path: Path, files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Lines of JSON by the file that each names.

    Raises:
        DataError: it cannot be read, or a line is none.
    """
    known: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--items {path}: cannot be read ({error}); give a file with a JSON object on each line") from None
    for number, line in enumerate(lines, 1):
        try:
            item = json.loads(line) if line.strip() else None
        except ValueError:
            item = line
        if item is None:
            continue
        if not isinstance(item, dict) or item.get("file") not in files:
            raise DataError(f"--items {path}, line {number}: is no JSON object whose key file names one of the pictures")
        known[item["file"]] = item
    return known


def portions(files: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """The files in portions, each for one job."""
    portion: dict[str, Path] = {}
    size = 0
    for name, path in files.items():
        bytes_ = path.stat().st_size
        if portion and (len(portion) >= _PORTION or size + bytes_ > _PORTION_BYTES):
            yield portion
            portion, size = {}, 0
        portion[name] = path
        size += bytes_
    yield portion
