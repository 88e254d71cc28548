"""The migrate job (format migration): an older version's output -> the same in today's formats, replaced atomically in its place.

A folder is made anew beside the old one, of which unchanged files become hard links, and takes its place as any output of a job does: the
old one or the new one whole. Knows the order of work; what becomes of a file is in file_upgrades.py, how a folder takes another's place in
reid_ray.storage.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reid_ray.errors import DataError
from reid_ray.migrate.config import MigrateJob
from reid_ray.migrate.file_upgrades import REMEDY, VersionedFile, versioned_files, write_current
from reid_ray.migrate.unmarked import own_files
from reid_ray.storage import MANIFEST, read_object
from reid_ray.storage.listing import MARK, files_below, read_mark, write_mark
from reid_ray.storage.lock import OutputLock
from reid_ray.storage.place import OutputPlace
from reid_ray.terminal.own_lines import say
from reid_ray.versions import FORMATS, manifest_kind, number_of

_RUN = re.compile(r"\.(.+)\.[0-9a-f]{16}\.run", re.DOTALL)  # a training run's folder, and its output's name

_NO_OUTPUTS = ("encoder", "mllm", "checkpoint", "run")


def run_migrate(config: MigrateJob) -> dict[str, Any]:
    """Run the job; returns {"path", "migrated": {kind: files}, "current": files that were of today's format already}.

    Raises:
        DataError: nothing there has a format, something is of a newer one or damaged, another process writes there, or somebody else's
            files are there. Then nothing has changed.
    """
    folder = Path(config.path).resolve()
    if not os.path.lexists(folder) and folder.parent.is_dir():
        with OutputPlace(folder, "migrate", if_exists="replace", inputs={}).hold():
            pass  # brings back the old folder of a migration that died between two changes of names
    if not folder.is_dir():
        raise DataError(f"path: {folder} is no folder; give the output folder of a job, a model, a checkpoint or a ledger")
    found = _migrate_ledger(folder) if _is_ledger(folder) else _migrate_folder(folder)
    migrated = Counter(versioned.kind for versioned in found if versioned.older)
    current = sum(not versioned.older for versioned in found)
    words = ", ".join(f"{count} x {FORMATS[kind].what} to format {number_of(kind)}" for kind, count in sorted(migrated.items()))
    say(f"migrate: {folder}: {words or 'nothing to do'}; {current} were of today's format already")
    return {"path": str(folder), "migrated": dict(sorted(migrated.items())), "current": current}


def _migrate_folder(folder: Path) -> list[VersionedFile]:
    job = _writer_of(folder)
    place = OutputPlace(folder, job, if_exists="replace", inputs={})
    with place.hold(), _held_run(folder):
        found = versioned_files(folder)
        marked = read_mark(folder) is not None
        if marked and not any(versioned.older for versioned in found):
            return [*found, *_migrate_ledger_of(folder)]
        _refuse_torn(folder, found)
        facts = {"run_id": _manifest_in(folder).get("run_id")}
        if not marked:  # from now on it is told from a stranger's folder; its files are as old as before
            _refuse_strangers(folder, job)
            write_mark(folder, {**facts, "job": job}, listed=True)
        place.check(files=True)
        place.begin(facts)
        try:
            _link_tree(folder, place.folder, without={versioned.name for versioned in found if versioned.older} | {MARK})
            for versioned in found:
                if versioned.older:
                    write_current(versioned, folder, place.folder)
            place.commit(facts)
        finally:
            place.drop()
        return [*found, *([] if marked else [VersionedFile(MARK, "mark", 0)]), *_migrate_ledger_of(folder)]


def _writer_of(folder: Path) -> str:
    """The job that wrote an output; of a folder that is no output, its kind.

    Raises:
        DataError: the folder is none of ours, or a part of an output, whose list of files would be wrong afterwards.
    """
    if _RUN.fullmatch(folder.name):
        return "run"
    manifest = _manifest_in(folder)
    kind = manifest_kind(manifest)
    if kind is None:
        raise DataError(f"path: {folder} has no {MANIFEST} of this package, so it is no finished output, model or checkpoint; give one")
    for above in folder.parents:
        if _is_output(above):
            raise DataError(f"path: {folder} is a part of the output {above}; give that")
    return str(manifest.get("job")) if kind == "output" else kind


def _is_output(folder: Path) -> bool:
    """Whether a job wrote `folder`; a manifest.json further up may be anybody's."""
    try:
        return manifest_kind(_manifest_in(folder)) == "output"
    except DataError:
        return False


def _manifest_in(folder: Path) -> dict[str, Any]:
    return read_object(folder / MANIFEST, remedy=REMEDY) if (folder / MANIFEST).is_file() else {}


def _refuse_strangers(folder: Path, job: str) -> None:
    """What is marked as a job's own may be deleted by a later run of it: nothing else may be."""
    if job in _NO_OUTPUTS:  # no job replaces it by its mark
        return
    own = own_files(job)
    if own is None:
        raise DataError(
            f"path: {folder} is the output of {job}, whose files cannot be told from others; run the job again in another place"
        )
    strange = next((name for name, _ in files_below(folder) if not own(name)), None)
    if strange is not None:
        raise DataError(f"path: {folder} holds {strange}, which the job {job} did not write; move what is yours away, then migrate")


@contextmanager
def _held_run(folder: Path) -> Iterator[None]:
    """The lock of the output that the run in `folder` is for; nothing for other folders."""
    match = _RUN.fullmatch(folder.name)
    if match is None:
        yield
        return
    lock = OutputLock(folder.with_name(match[1]), "migrate")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _refuse_torn(folder: Path, found: list[VersionedFile]) -> None:
    """A checkpoint that is not whole must not be written down as one."""
    for versioned in found:
        if versioned.kind == "checkpoint" and versioned.older:
            place = (folder / versioned.name).parent
            for name, size in read_object(place / MANIFEST, remedy=REMEDY)["files"].items():
                if not (place / name).is_file() or (place / name).stat().st_size != size:
                    raise DataError(f"{place / name}: is missing or not {size} bytes long, so the checkpoint is not whole; remove {place}")


def _link_tree(folder: Path, new: Path, *, without: set[str]) -> None:
    """The files of `folder` in `new`, without copying them where the file system has hard links."""
    for parent, subfolders, names in os.walk(folder):
        there = new / Path(parent).relative_to(folder)
        there.mkdir(exist_ok=True)
        shutil.copymode(parent, there)  # what was its user's alone stays so
        links = [name for name in subfolders if Path(parent, name).is_symlink()]
        for name in [*links, *names]:
            file = Path(parent, name)
            if file.relative_to(folder).as_posix() in without:
                continue
            if file.is_symlink():
                (there / name).symlink_to(os.readlink(file))
                continue
            try:
                os.link(file, there / name)
            except OSError:
                shutil.copy2(file, there / name)


def _is_ledger(folder: Path) -> bool:
    return folder.name.startswith(".") and folder.name.endswith(".ledger")


def _migrate_ledger_of(output: Path) -> list[VersionedFile]:
    ledger = output.parent / f".{output.name}.ledger"
    return _migrate_ledger(ledger) if ledger.is_dir() else []


def _migrate_ledger(folder: Path) -> list[VersionedFile]:
    """Opening a ledger checks it, and numbers it: its rows are read as they are."""
    from reid_ray.caption.ledger.write_ahead_log import FORMAT, ledger_format, open_ledger

    found = VersionedFile(FORMAT, "ledger", ledger_format(folder))
    with open_ledger(folder.parent / folder.name.removeprefix(".").removesuffix(".ledger")):
        return [found]
