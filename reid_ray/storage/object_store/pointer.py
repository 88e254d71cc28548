"""The pointer of an output at an object store: one object, current.json, that names the folder of the result and who writes it now.

    s3://bucket/out/current.json          the pointer; exchanged whole, by a conditional put
    s3://bucket/out/run-XXXX/...          files of one run, never changed; manifest.json and the mark's list of files among them
    s3://bucket/out/.ledger/...           what a captioning job resumes from

Who reads s3://bucket/out/captions reads s3://bucket/out/run-XXXX/captions of the run that the nearest pointer names at that moment, and
goes on with it whatever is put there later. Knows the pointer's fields; not how it is exchanged (lease.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reid_ray.storage.file_systems import Store, store_at
from reid_ray.storage.object_store.object_client import is_store_address
from reid_ray.versions import check_json, numbered

POINTER = "current.json"
_RUN = re.compile(r"run-[0-9a-f]{32}")


@dataclass(frozen=True)
class Pointer:
    """What a pointer says.

    folder: below the output's address, of the result; None while there is none. job: whose result it is. owner: who writes now, as
    lock.py describes a process, or None. token: another with every write. gallery: of a gallery, which has no folder, its generation and
    its snapshots' manifests by name.
    """

    folder: str | None
    job: str | None
    owner: Mapping[str, Any] | None
    token: str
    gallery: Mapping[str, Any] | None = None

    def encoded(self) -> bytes:
        """The object's bytes."""
        fields = {"folder": self.folder, "job": self.job, "owner": self.owner, "token": self.token}
        if self.gallery is not None:
            fields["gallery"] = self.gallery
        return json.dumps({"made_by": "reid_ray", **numbered("pointer"), **fields}, indent=2).encode()


def run_folder(run_id: str) -> str:
    """The name of a run's folder; run_id is 32 hex digits."""
    return f"run-{run_id}"


def is_run_folder(name: object) -> bool:
    """Whether a name is one that only a run's folder has."""
    return isinstance(name, str) and _RUN.fullmatch(name) is not None


def place_name(root: str) -> str:
    """What a folder is called: its last name, or of a run's folder that of its output."""
    *_, above, last = ["", *root.split("/")]
    return above if is_run_folder(last) else last


def pointer_in(data: bytes, *, origin: str) -> Pointer | None:
    """The pointer that an object holds, or None if it is none of ours.

    Raises:
        DataError: a newer version of this package wrote it.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("made_by") != "reid_ray":
        return None
    check_json("pointer", fields, origin=origin)
    folder, owner = fields.get("folder"), fields.get("owner")
    if not (folder is None or is_run_folder(folder)):
        return None
    gallery = fields.get("gallery")
    return Pointer(
        folder,
        fields.get("job"),
        owner if isinstance(owner, dict) else None,
        str(fields.get("token")),
        gallery if isinstance(gallery, dict) else None,
    )


def reading_place(location: str) -> str:
    """Where a reader of `location` reads now: below the result that the nearest pointer names, or the location as it is.

    Asks for one small object in each folder of the address, from the last one upwards.

    Raises:
        DataError: the store does not answer, or a newer version of this package wrote the pointer.
    """
    if not is_store_address(location):
        return location
    address, mark, options = location.partition("?")
    scheme, _, path = address.rstrip("/").partition("://")
    parts = path.split("/")
    for above, pointer in _pointers(location, parts):
        if pointer.folder is None or (above < len(parts) and parts[above] == pointer.folder):
            return location
        return f"{scheme}://{'/'.join([*parts[:above], pointer.folder, *parts[above:]])}{mark}{options}"
    return location


def run_at(location: str) -> str | None:
    """run_id of the job whose output an address lies in; None if that is of no job. Raises as reading_place."""
    parts = reading_place(location).partition("?")[0].split("/")
    return next((part.removeprefix("run-") for part in reversed(parts) if is_run_folder(part)), None)


def output_at(location: str) -> str | None:
    """The address of the run's folder that an address lies in; None if that is of no job. Raises as reading_place."""
    address, mark, options = reading_place(location).partition("?")
    parts = address.split("/")
    last = max((at for at, part in enumerate(parts) if is_run_folder(part)), default=None)
    return None if last is None else "/".join(parts[: last + 1]) + mark + options


def _pointers(location: str, parts: list[str]) -> Iterator[tuple[int, Pointer]]:
    """(how many parts of the path lie above it, pointer), the nearest first."""
    store = store_at(location)
    here = store.root.split("/")
    for above in range(len(here), 0, -1):
        folder = Store(store.filesystem, "/".join(here[:above]), uri=f"{location.partition('://')[0]}://{'/'.join(here[:above])}")
        try:
            data = folder.read_bytes(POINTER)
        except OSError:  # none, or none for this user: who reads there says so
            continue
        if (found := pointer_in(data, origin=f"{folder}/{POINTER}")) is not None:
            yield above - len(here) + len(parts), found
