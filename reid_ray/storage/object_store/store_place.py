"""Atomic commit of an output at an object store: lease, staging, upload, publish by one conditional put, crash recovery.

Knows the objects of an output, marks and the lease; not jobs or what they write. The protocol is place.py's, without a rename:

    check       what lies at the address may be replaced: nothing, or a result of this job with no object of anybody else
    hold        the output's lease (lease.py), which fences off every owner before; then what dead runs left is cleared
    begin       a staging folder on this machine's disk, in TMPDIR, readable by this user alone
    commit      every file to run-XXXX/, the list of them last, then `check` once more, then the pointer is exchanged; the old run's
                objects go, as their own list says

A process that dies at any moment leaves the older result or the newer one, whole: objects of a run are never changed, and the pointer
names one run. A reader that found the older one may see its objects go while it reads, as at a folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from reid_ray.config.called import called
from reid_ray.errors import DataError
from reid_ray.scratch import scratch_folder
from reid_ray.storage.listing import MARK, files_below, sizes_listed, write_mark
from reid_ray.storage.object_store.lease import OutputLease, TakenOverError
from reid_ray.storage.object_store.object_client import ObjectFolder
from reid_ray.storage.object_store.pointer import POINTER, Pointer, is_run_folder, run_folder
from reid_ray.storage.place import IfExists
from reid_ray.storage.provenance import read_manifest
from reid_ray.terminal.own_lines import say

LEDGER_FOLDER = ".ledger"  # where a captioning job's ledger lies below the output's address


class StorePlace:
    """The transaction of one output at an address: check, hold, begin, commit or drop.

    Args:
        location: the output's address.
        job: whose result it is; only that job replaces it.
        if_exists: see OutputConfig.if_exists.
        inputs: name -> address that the job reads; none may lie in the output.
    """

    def __init__(self, location: str, job: str, *, if_exists: IfExists, inputs: Mapping[str, str]) -> None:
        self._objects = ObjectFolder(location)
        self._job, self._if_exists, self._inputs = job, if_exists, inputs
        self._lease = OutputLease(self._objects, job)
        self._staged = ExitStack()
        self._folder: Path | None = None
        self._run: str | None = None
        self._uploaded = False

    @property
    def location(self) -> str:
        """Where the output appears."""
        return str(self._objects)

    @property
    def folder(self) -> Path:
        """Where its files are written until then."""
        assert self._folder is not None, "begin() comes first"
        return self._folder

    def check(self, *, files: bool) -> None:
        """Whether the job may write here, by what lies here now.

        Args:
            files: compare every object with the list in the mark, too (a listing of the output).

        Raises:
            DataError: names what is in the way, and the remedy.
        """
        for name, source in self._inputs.items():
            if f"{source.partition('?')[0].rstrip('/')}/".startswith(f"{self._objects.place}/"):
                raise DataError(
                    f"{self.location}: {called('output.path')} is {name} ({source}), or above it; choose another {called('output.path')}"
                )
        _, pointer = self._lease.read()
        if pointer.folder is not None and self._if_exists == "refuse":
            raise DataError(
                f"{self.location}: exists already; set {called('output.if_exists')} to replace or reuse, or choose another "
                f"{called('output.path')}"
            )
        if (stranger := self._why_not_ours(pointer, files=files)) is not None:
            raise DataError(
                f"{self.location}: {stranger}; it will not be replaced: choose another {called('output.path')}, or move what is yours away"
            )

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the output's lease, and clear what dead runs left; nothing if it is held already.

        Raises:
            DataError: another run writes this output.
        """
        if self._lease.held:
            yield
            return
        self._lease.acquire()
        try:
            self._clear_dead_runs()
            yield
        finally:
            self._lease.release()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Make the staging folder. `facts` of the run, run_id among them, go into the mark."""
        self._folder = self._staged.enter_context(scratch_folder())
        self._run = run_folder(facts["run_id"])

    def drop(self) -> None:
        """Remove what is staged, here and, of a run that came to nothing, at the store."""
        self._staged.close()
        self._folder = None
        if self._uploaded and self._run is not None:
            self._uploaded = False
            run = self._objects.child(self._run)
            run.remove([each.name for each in run.listed()])

    def commit(self, facts: Mapping[str, Any]) -> None:
        """Let what is in the staging folder appear at the address.

        Raises:
            DataError: something else appeared there meanwhile, or another run has taken the output over.
        """
        sys.audit("reid_ray.commit", self.location)
        assert self._run is not None
        write_mark(self.folder, {**facts, "job": self._job}, listed=True)
        run = self._objects.child(self._run)
        self._uploaded = True
        run.put_all((name, self.folder / name) for name, _ in files_below(self.folder))
        run.put(MARK, self.folder / MARK)
        self.check(files=True)
        _, before = self._lease.read()
        self._uploaded = False  # from here on the pointer may name it, whatever we hear: what is not named goes with the next run
        try:
            self._lease.change(folder=self._run, job=self._job)
        except TakenOverError:
            self._uploaded = True
            raise
        try:
            if before.folder is not None:
                self._remove(before.folder)
        except DataError as error:  # the newer result is in place, whatever becomes of the older one
            say(f"{self._job}: the replaced result is not removed yet, but by the next run ({error})")

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of the result that is here; None if there is none."""
        return None if self._lease.read()[1].folder is None else read_manifest(self.location)

    def differences(self) -> Iterator[tuple[str, str]]:
        """(kind, name) of every object of the result that is not as its mark says; as listing.differences, but for the texts' digests."""
        _, pointer = self._lease.read()
        return iter(()) if pointer.folder is None else self._differences(pointer.folder)

    def _differences(self, folder: str) -> Iterator[tuple[str, str]]:
        listed = self._listed(folder)
        there = {each.name: each.size for each in self._objects.child(folder).listed() if each.name != MARK}
        for name in sorted({*listed, *there}):
            if name not in listed:
                yield "foreign", name
            elif name not in there:
                yield "missing", name
            elif listed[name] != there[name]:
                yield "changed", name

    def _listed(self, folder: str) -> dict[str, int]:
        """Name -> size of what the mark of a run's folder lists; nothing if it has none, for then it never was whole."""
        found = self._objects.child(folder).read(MARK)
        return {} if found is None else sizes_listed(found.data, origin=self._objects.locate(f"{folder}/{MARK}"))

    def _why_not_ours(self, pointer: Pointer, *, files: bool) -> str | None:
        """Why what lies at the address is not this job's to replace, or None."""
        known = {POINTER, f"{LEDGER_FOLDER}/"}
        stranger = next((name for name in self._objects.entries() if name not in known and not is_run_folder(name.rstrip("/"))), None)
        if stranger is not None:
            return f"holds {stranger}, which no job wrote"
        if pointer.folder is None:
            return None
        if pointer.job != self._job:
            return f"is the output of the job {pointer.job}, not of {self._job}"
        if files and (names := [name for kind, name in self._differences(pointer.folder) if kind != "missing"]):
            return f"holds {', '.join(names[:3])}, which the job did not write, or which changed since"
        return None

    def _clear_dead_runs(self) -> None:
        """Crash recovery, with the lease held: remove the objects of runs that the pointer does not name."""
        _, pointer = self._lease.read()
        for entry in self._objects.entries():
            name = entry.rstrip("/")
            if is_run_folder(name) and name != pointer.folder:
                self._remove(name)

    def _remove(self, folder: str) -> None:
        """Remove a run's objects: of a whole one what its list says, the list last; of an unfinished one all."""
        run = self._objects.child(folder)
        there = {each.name: each.size for each in run.listed()}
        listed = self._listed(folder) if MARK in there else there
        run.remove([name for name in there if name != MARK and listed.get(name) == there[name]])
        if left := sorted({name for name in there if name != MARK and listed.get(name) != there[name]}):
            say(f"{self._job}: objects that no job wrote are in the replaced result, and stay: {run.locate(left[0])}")
        elif MARK in there:
            run.remove([MARK])
