"""Atomic, durable file writes (fsync + rename): files appear whole or not at all, and are on the disk when they do.

Knows bytes, names and fsync; not folders of results (place.py), tables (tables.py) or what else may lie where a file should
(regular_files.py). What brings data to the disk raises an audit
event (sys.audit) named reid_ray.fsync, so that an order of writing can be recorded.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from reid_ray.errors import DataError
from reid_ray.storage.regular_files import open_regular

NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO)  # there is no regular file of that name
_SYNCED_ONE_BY_ONE = 2_000  # files; of more, the whole file system is synced in one call


@contextmanager
def replacing(path: Path, *, hidden: Path | None = None) -> Iterator[Path]:
    """A hidden file to fill, which takes the name `path` once it is whole; it is removed if anything is raised.

    Args:
        path: the file that appears or is replaced.
        hidden: where it is filled, in the same folder; None takes a name of its own, so that two may write at once.
    """
    hidden = hidden or path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield hidden
        os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    with replacing(Path(path)) as hidden:
        hidden.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON (sorted as given, 2 spaces, newline at the end), whole or not at all. NaN is refused: JSON has none."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_durably(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file under a hidden name, bring it to the disk, and only then give it its name: whole, even after a power cut."""
    path = Path(path)
    with replacing(path) as hidden:
        write(hidden)
        sync(hidden)
    sync(path.parent)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: as `open_regular`.
        ValueError: it is not JSON, or nested beyond reason.
    """
    with open_regular(path) as file:
        try:
            return json.loads(file.read())
        except RecursionError:
            raise ValueError("it is nested too deeply") from None


def read_object(path: Path, *, remedy: str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        DataError: it cannot be read, is not JSON, or holds something else; ends with the remedy.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: cannot be read, since its JSON is no object; {remedy}")
    return found


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk."""
    sys.audit("reid_ray.fsync", str(path))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network file systems have no fsync of folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path, files: Iterable[str]) -> None:
    """Bring `files` (relative names) and every folder from `folder` downwards to the disk."""
    names = iter(files)
    first = list(islice(names, _SYNCED_ONE_BY_ONE + 1))
    if len(first) > _SYNCED_ONE_BY_ONE and _sync_file_system(folder):
        return
    for name in chain(first, names):
        sync(folder / name)
    for parent, _, _ in os.walk(folder, topdown=False):
        sync(Path(parent))


def sha256_of(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a regular file, never held whole.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_file_system(folder: Path) -> bool:
    """syncfs(2); whether the system has it."""
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    sys.audit("reid_ray.fsync", str(folder))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return bool(syncfs(descriptor) == 0)
    finally:
        os.close(descriptor)
