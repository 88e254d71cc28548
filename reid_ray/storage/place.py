"""Atomic commit of an output folder: lock, staging, publish by an exchange of names, crash recovery.

Knows folders, marks and locks; not jobs or what they write. The protocol, in the order of a run:

    check       what lies at the place may be replaced: nothing, an empty folder, or a result of this job with no file of anybody else
    hold        the output's lock, against every other process (lock.py); then what dead runs left is cleared, or restored
    begin       a staging folder beside the output, marked as ours (listing.py)
    commit      every file to the disk, then the list of them, then `check` once more, then one exchange of names, then the old one goes,
                file by file as its own list says

A process that dies at any moment leaves the older result or the newer one at the place, whole. Where the system cannot exchange two
names there is a moment with neither; the next run of the output restores the older one before anything else.

A commit raises an audit event (sys.audit) named reid_ray.commit as it begins, and every step of it is an event of its own, so that a test
can stop a process before each. Hidden names are .NAME.lock, .NAME.XXXXXXXX.partial and .NAME.XXXXXXXX.old (eight hex digits) beside an
output NAME, and are matched whole, so that those of NAME are never those of NAME.x. At an object store the same steps are those of
object_store/store_place.py.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from reid_ray.config.called import called
from reid_ray.errors import DataError
from reid_ray.storage.files import sync, sync_tree
from reid_ray.storage.legacy import is_legacy_output
from reid_ray.storage.listing import MARK, differences, files_below, foreign, names_in, read_mark, remove_listed, write_mark
from reid_ray.storage.lock import OutputLock
from reid_ray.storage.provenance import MANIFEST, read_manifest
from reid_ray.storage.rename import exchange, rename_to_free_name
from reid_ray.terminal.own_lines import say

IfExists = Literal["refuse", "replace", "reuse"]
_HIDDEN = re.compile(r"^\.(?P<name>.+)\.(?:(?P<hex>[0-9a-f]{8})\.(?P<kind>partial|old)|lock|ledger)$", re.DOTALL)
_LOCK = re.compile(r"^\.(?P<name>.+)\.lock$", re.DOTALL)
_LONGEST = len(".") + len(".xxxxxxxx.partial")  # bytes that the longest hidden name adds


class OutputPlace:
    """The transaction of one output folder: check, hold, begin, commit or drop.

    Args:
        path: the output's folder; `~` and links are resolved here, once.
        job: whose result it is; only that job replaces it.
        if_exists: see OutputConfig.if_exists.
        inputs: name -> local path that the job reads; none may lie in the output.
    """

    def __init__(self, path: str | Path, job: str, *, if_exists: IfExists, inputs: Mapping[str, Path]) -> None:
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self.folder = self.path.parent / f".{self.path.name}.{uuid.uuid4().hex[:8]}.partial"
        self._job, self._if_exists, self._inputs = job, if_exists, inputs
        self._lock = OutputLock(self.path, job)
        self._appeared = False

    @property
    def location(self) -> str:
        """Where the output appears."""
        return str(self.path)

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of the result that is here; None if there is none."""
        return read_manifest(self.path) if (self.path / MANIFEST).exists() else None

    def differences(self) -> Iterator[tuple[str, str]]:
        """(kind, name) of every file of the result that is not as its mark says; see listing.differences."""
        return differences(self.path)

    def check(self, *, files: bool) -> None:
        """Whether the job may write here, by what lies here now.

        Args:
            files: compare every file with the list in the mark, too (a walk over the output).

        Raises:
            DataError: names what is in the way, and the remedy.
        """
        self._check_name()
        if files or not os.path.lexists(self.path):  # a finished result may be reused where nothing can be written
            self._check_parent()
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise DataError(f"{self.path}: is a file, but {called('output.path')} must name a folder")
        if self._if_exists == "refuse":
            raise DataError(
                f"{self.path}: exists already; set {called('output.if_exists')} to replace or reuse, or choose another "
                f"{called('output.path')}"
            )
        if os.path.ismount(self.path):
            raise DataError(f"{self.path}: is a mount point, which cannot be exchanged; let {called('output.path')} name a folder below it")
        if (stranger := self._why_not_ours(files=files)) is not None:
            raise DataError(
                f"{self.path}: {stranger}; it will not be replaced: choose another {called('output.path')}, or move what is yours away"
            )

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the output's lock, and clear or restore what dead runs left; nothing if it is held already.

        Raises:
            DataError: another run writes this output.
        """
        if self._lock.held:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._recover_crashed_runs()
            yield
        finally:
            self._lock.release()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Make the staging folder. `facts` of the run go into its mark."""
        self.folder.mkdir()
        write_mark(self.folder, {**facts, "job": self._job}, listed=False)

    def drop(self) -> None:
        """Remove the staging folder, if there is one; once the result has appeared, what lies there is an older one's, and `commit`'s."""
        if not self._appeared:
            shutil.rmtree(self.folder, ignore_errors=True)

    def commit(self, facts: Mapping[str, Any]) -> None:
        """Let what is in the staging folder appear at the place.

        Raises:
            DataError: something else appeared there meanwhile; the result is kept under a name that is said.
        """
        sys.audit("reid_ray.commit", str(self.path))
        sync_tree(self.folder, (name for name, _ in files_below(self.folder)))
        write_mark(self.folder, {**facts, "job": self._job}, listed=True)
        sync(self.folder / MARK)
        sync(self.folder)
        try:
            self.check(files=True)
            self._publish()
        except (DataError, FileExistsError) as error:
            kept = self.path.parent / f"{self.path.name}.kept-{uuid.uuid4().hex[:8]}"
            rename_to_free_name(self.folder, kept)
            reason = str(error) if isinstance(error, DataError) else f"{self.path}: exists already"
            raise DataError(f"{reason} (it was not there when the job began; the finished result is kept at {kept})") from None
        sync(self.path.parent)

    def _publish(self) -> None:
        old = None
        if not os.path.lexists(self.path):
            rename_to_free_name(self.folder, self.path)
        elif exchange(self.folder, self.path):
            old = self.folder
        else:
            old = self.folder.with_suffix(".old")
            rename_to_free_name(self.path, old)
            rename_to_free_name(self.folder, self.path)
        self._appeared = True
        sync(self.path.parent)
        if old is not None:
            self._remove(old)

    def _why_not_ours(self, *, files: bool) -> str | None:
        """Why what lies at the place is not this job's to replace, or None."""
        mark = read_mark(self.path)
        if mark is None:
            entry = next(iter(names_in(self.path)), None)
            if entry is None:
                return None
            if is_legacy_output(self.path):
                return f"was written by an older reid_ray, which kept no list of its files; reid-ray migrate path={self.path} makes one"
            return f"holds {entry}, and no mark of a job's output"
        if mark["job"] != self._job:
            return f"is the output of the job {mark['job']}, not of {self._job}"
        if files and (names := foreign(self.path)):
            return f"holds {', '.join(names)}, which the job did not write, or which changed since"
        return None

    def _check_name(self) -> None:
        if self.path == Path(self.path.anchor) or self.path in (Path.cwd(), *Path.cwd().parents):
            raise DataError(
                f"{self.path}: {called('output.path')} is the folder that this command runs in, or one above it; name a new folder"
            )
        if len(os.fsencode(self.path.name)) + _LONGEST > 255:
            raise DataError(f"{self.path}: {called('output.path')}'s last name is too long; keep it below {255 - _LONGEST} bytes")
        if _HIDDEN.match(self.path.name):
            raise DataError(f"{self.path}: {called('output.path')} has a name that hidden files of outputs use; choose another")
        for name, source in self._inputs.items():
            if self.path in (source, *source.parents):
                raise DataError(
                    f"{self.path}: {called('output.path')} is {name} ({source}), or a folder above it; choose another "
                    f"{called('output.path')}"
                )

    def _check_parent(self) -> None:
        above = next(folder for folder in self.path.parents if os.path.lexists(folder))
        if not above.is_dir():
            raise DataError(f"{self.path}: {above} is a file, so no folder can be made below it; choose another {called('output.path')}")
        if not os.access(above, os.W_OK | os.X_OK):
            raise DataError(
                f"{self.path}: {above} is read-only here; choose another {called('output.path')}, or ask for the right to write there"
            )

    def _recover_crashed_runs(self) -> None:
        """Crash recovery, with the lock held: restore or remove the folders that dead runs left."""
        names = list(names_in(self.path.parent))
        for name in names:  # of what was written in a staging folder under a lock of its own
            if (lock := _LOCK.match(name)) is not None and self._is_leftover(lock["name"]):
                (self.path.parent / name).unlink(missing_ok=True)
        left = [self.path.parent / name for name in names if self._is_leftover(name)]
        for folder in left:
            if folder.suffix == ".old" and not os.path.lexists(self.path) and read_mark(folder) is not None:
                rename_to_free_name(folder, self.path)
                sync(self.path.parent)
                say(f"{self._job}: {self.path} is restored; a run died while it put a newer result in its place")
            else:
                self._remove(folder)

    def _is_leftover(self, name: str) -> bool:
        match = _HIDDEN.match(name)
        return match is not None and match["name"] == self.path.name and match["kind"] is not None

    def _remove(self, folder: Path) -> None:
        """Remove a folder of ours: of a whole one what its list says, of an unfinished one everything. What cannot go is named."""
        mark = read_mark(folder) if folder.is_dir() and not folder.is_symlink() else None
        if mark is not None and not mark["whole"]:
            shutil.rmtree(folder, ignore_errors=True)
        elif mark is not None:
            self._remove_whole(folder)
        elif folder.is_dir() and set(names_in(folder)) <= {f"{MARK}.new"}:
            shutil.rmtree(folder, ignore_errors=True)  # died while it was marked
        else:
            say(f"{self._job}: {folder} is left from an older version's run, or is none of ours; remove it if no run is alive")

    def _remove_whole(self, folder: Path) -> None:
        try:
            why = None if remove_listed(folder) else "files that no job wrote were in the replaced result"
        except (OSError, DataError) as error:  # the newer result is in place, whatever becomes of the older one
            why = f"the replaced result could not be removed ({error})"
        if why is not None:
            kept = self.path.parent / f"{self.path.name}.left-{uuid.uuid4().hex[:8]}"
            rename_to_free_name(folder, kept)
            say(f"{self._job}: {why}; what is left of it is now in {kept}")
