"""Provenance by content hash: what a result was made from, as a digest for every path that a configuration names.

Two runs of one configuration are one result only if these digests are equal, too. They are, by what the path is:

    a model's folder           SHA-256 over its files' contents (weights, tokenizer, configuration); not where it lies or when it was made
    (a file of) a job's output the run that wrote it, and the listing of the files below the path
    any other folder or file   the listing: every file's name, size, time of change and rights, as rsync compares
    an address                 the store's own listing, likewise, and the run; one that cannot be listed is never the same twice

A manifest that a job left in a model's folder is no content: it names times and machines. Hub names and builtin: names are no places;
their revision is part of the configuration, or of what the job adds itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from reid_ray.config.paths import expanded, named_places
from reid_ray.errors import DataError
from reid_ray.storage.file_systems import State, Store, store_at
from reid_ray.storage.files import NO_FILE, read_json, sha256_of_file
from reid_ray.storage.object_store.object_client import is_store_address
from reid_ray.storage.object_store.pointer import output_at, reading_place, run_at
from reid_ray.versions import check_manifest

MANIFEST = "manifest.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_FOLDERS = 16  # looked into for weights
_WRITTEN = frozenset({"output", "checkpoint_storage", "staging"})


def local_inputs(config: BaseModel) -> dict[str, Path]:
    """Dotted key -> path, for every place that a configuration names (config.paths) and that is there; where a job writes is left out."""
    found = {}
    for key, text in named_places(config, without=_WRITTEN).items():
        for path in (text, text.partition("#")[0]):  # FOLDER#feature
            if path and os.path.exists(path):
                found[key] = Path(os.path.realpath(path))
                break
    return found


def named_inputs(inputs: Mapping[str, Any]) -> dict[str, Path]:
    """Name -> path, for what a job itself says that it reads (a path, or several) and that is there; descriptions are left out."""
    found = {}
    for name, value in inputs.items():
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        for number, each in enumerate(several):
            if isinstance(each, str | Path) and os.path.exists(each):
                found[name if several is not value else f"{name}.{number}"] = Path(os.path.realpath(each))
    return found


def remote_inputs(config: BaseModel) -> dict[str, str]:
    """Dotted key -> address (s3://...), for every place that a configuration names by one."""
    return {key: text for key, text in named_places(config, without=_WRITTEN).items() if "://" in text}


def content_at(address: str) -> str:
    """As `content_of`, of what an address names: the store lists it, in an order that is always the same."""
    try:
        place = reading_place(address)
        store, run = store_at(place), run_at(place)
        files = store.walk_states() if store.is_folder() else [("", store.state())]
        listing = ((name, *_told(store, name, state)) for name, state in files)
        return _digest(listing if run is None else chain([run], listing))
    except (DataError, OSError):
        return uuid.uuid4().hex[:16]  # whoever reads it says why it cannot be read


def _told(store: Store, name: str, listed: State | None) -> State:
    """A file's state by its listing, or asked for."""
    state = listed or store.state(name)
    if state is None:
        raise FileNotFoundError(f"{store.locate(name)}: its state is not told")
    return state


def content_of(path: Path) -> str:
    """16 hex digits that change when what lies at `path` does; see above what counts."""
    if path.is_dir() and _is_model(path):
        return _digest(
            (file.relative_to(path).as_posix(), _sha256(file)) for file in _files(path) if file.name != MANIFEST and file.is_file()
        )
    return _digest(chain([run_of(path)], _listing(path)))


def run_of(path: Any) -> str | None:
    """run_id of the job that wrote `path`: from the nearest manifest in or above it that names a run; None if no job wrote it.

    Of an address: from the pointer of the output that it lies in.
    """
    if not isinstance(path, str | Path):
        return None
    if is_store_address(str(path)):
        return run_at(str(path))
    manifest = manifest_above(path)
    return None if manifest is None else str(manifest["run_id"])


def manifest_above(path: str | Path) -> dict[str, Any] | None:
    """The manifest of the job that wrote `path`: the nearest in or above it that names a run; None if no job wrote it.

    Of an address: of the output that its pointer names.

    Raises:
        DataError: a store does not answer, or a newer version of this package wrote what lies at an address.
    """
    if is_store_address(str(path)):
        output = output_at(str(path))
        return None if output is None else _manifest_at(output)
    here = Path(os.path.realpath(expanded(str(path))))
    for folder in (here, *here.parents):
        manifest = _manifest_of(folder)
        if manifest is not None and isinstance(manifest.get("run_id"), str):
            return manifest
    return None


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a job's output folder.

    Raises:
        DataError: it is missing (the job did not finish), is not JSON, or is of a newer format.
    """
    if is_store_address(str(folder)):
        return _manifest_at(str(folder))
    path = Path(expanded(str(folder))) / MANIFEST
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        raise DataError(f"{path}: is missing, so {folder} is not the output of a finished job; run that job first") from None
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error})") from None
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise DataError(f"{path}: cannot be read ({error.strerror}); run the job again that wrote {folder}") from None
    return _checked(manifest, path, folder)


def _manifest_at(address: str) -> dict[str, Any]:
    """As read_manifest, at a store."""
    store = store_at(reading_place(address))
    path = store.locate(MANIFEST)
    try:
        manifest = json.loads(store.read_bytes(MANIFEST))
    except FileNotFoundError:
        raise DataError(f"{path}: is missing, so {address} is not the output of a finished job; run that job first") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); give this user the right to read it") from None
    return _checked(manifest, path, address)


def _checked(manifest: Any, path: object, folder: object) -> dict[str, Any]:
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: holds no fields, so it is no job's manifest; run the job again that wrote {folder}")
    check_manifest(manifest, origin=path)
    return manifest


def _manifest_of(folder: Path) -> dict[str, Any] | None:
    """A manifest of ours, or None: a folder above may hold anybody's manifest.json."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _is_model(folder: Path) -> bool:
    """Whether a folder, or one right below it, holds weights."""
    with os.scandir(folder) as found:  # asking first whether it is a plain file saves a stat of each of millions
        entries = [(each.name, not each.is_file(follow_symlinks=False) and os.path.isdir(each.path)) for each in found]
    inner = [name for name, is_folder in entries if is_folder][:_FOLDERS]
    below = [name for each in inner for name in os.listdir(folder / each)]
    return any(name.endswith(_WEIGHTS) for name in [*(name for name, _ in entries), *below])


def _files(path: Path) -> Iterator[Path]:
    """Every file in or below a path, in one order; hidden ones are none of its content, and a link back up the tree is not followed."""
    if not path.is_dir():
        yield path
        return
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _listing(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """(name, size, time of change, kind and rights) of each file: one that could not be read may be readable now."""
    for file in _files(path):
        try:
            stat = file.stat()
        except OSError:  # a broken link, or gone since: its name alone counts
            yield file.relative_to(path).as_posix(), -1, -1, -1
        else:
            yield file.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns, stat.st_mode


def _sha256(file: Path) -> str:
    stat = file.stat()
    return _sha256_of(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_of(file: Path, size: int, mtime_ns: int) -> str:
    return sha256_of_file(file)


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()[:16]
