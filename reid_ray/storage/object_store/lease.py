"""Distributed lock of an output at an object store: a lease with fencing, held in the output's pointer by compare-and-swap.

The owner renews the pointer by a heartbeat. It is taken over from a process that is gone from this host, or from another host that has
not renewed it for LEASE_S by the store's own clock. Every write of the pointer needs the version of the one before, so an owner that was
taken over, however late it wakes, changes nothing any more: the pointer is lock, fence and result in one. Knows owners and the pointer;
not what the result is.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reid_ray.config.called import called
from reid_ray.errors import DataError
from reid_ray.storage.lock import LEASE_S, is_gone_from_here, this_process, written_by_another
from reid_ray.storage.object_store.object_client import FoundObject, ObjectFolder
from reid_ray.storage.object_store.pointer import POINTER, Pointer, pointer_in
from reid_ray.terminal.own_lines import say

_RENEW_S = 15.0
_TRIES = 3  # to be first where others take the lock at the same moment
_CLOCK = ".clock-"  # an object that is written to learn the store's time


class TakenOverError(DataError):
    """Another run is the owner now; the pointer does not and will not hold what this one wanted to write."""


class OutputLease:
    """Exclusive lock of one output at a store.

    Args:
        folder: the output's address.
        job: who asks.
    """

    def __init__(self, folder: ObjectFolder, job: str) -> None:
        self._folder, self._job = folder, job
        self._mutex = threading.Lock()
        self._pointer: Pointer | None = None  # as we last wrote it
        self._version: Mapping[str, str] = {}
        self._renewed = 0.0  # when the last write of the pointer was asked for, by this machine's clock
        self._over = threading.Event()
        self._beat = threading.Thread()

    @property
    def held(self) -> bool:
        """Whether this object took the lock and has not given it back."""
        return self._pointer is not None

    @property
    def pointer(self) -> Pointer:
        """As this owner wrote it last."""
        assert self._pointer is not None
        return self._pointer

    def assure(self) -> None:
        """Be sure to be the owner at this moment: nobody can have taken it over, for it was renewed lately, or is now.

        Raises:
            TakenOverError: another run has taken the output over.
            DataError: the store does not say.
        """
        if time.monotonic() - self._renewed > LEASE_S / 2:
            self.change()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DataError: another run holds it; says which. Or the store refuses.
        """
        for _ in range(_TRIES):
            found, before = self.read()
            if found is not None and before.owner is not None and not self._is_dead(before.owner, found):
                raise written_by_another(self._folder, before.owner)
            mine = replace(before, owner=this_process(self._job), token=uuid.uuid4().hex)
            data, asked = mine.encoded(), time.monotonic()
            version = self._folder.put_new(POINTER, data) if found is None else self._folder.put_over(POINTER, data, found.version)
            if version is not None:
                self._refuse_without_conditions(data)
                self._renewed = asked
                self._begin(mine, version)
                return
        raise written_by_another(self._folder, None)

    def read(self) -> tuple[FoundObject | None, Pointer]:
        """The pointer as it is now.

        Raises:
            DataError: it is none of ours, or of a newer version of this package.
        """
        found = self._folder.read(POINTER)
        if found is None:
            return None, Pointer(None, None, None, "")
        where = self._folder.locate(POINTER)
        pointer = pointer_in(found.data, origin=where)
        if pointer is None:
            raise DataError(
                f"{where}: is no pointer that a job left, but the output needs that name; move it away, or change {called('output.path')}"
            )
        return found, pointer

    def change(self, **fields: Any) -> None:
        """Exchange the pointer for one with other `fields`, if it still is this owner's.

        Raises:
            TakenOverError: another run has taken the output over.
            DataError: the store does not say what became of the pointer.
        """
        with self._mutex:
            assert self._pointer is not None
            new = replace(self._pointer, **fields, token=uuid.uuid4().hex)
            asked = time.monotonic()
            version = self._folder.put_over(POINTER, new.encoded(), self._version)
            if version is None:
                raise TakenOverError(f"{self._folder}: another run has taken this output over; this one gave no sign of life for long")
            self._pointer, self._version, self._renewed = new, version, asked

    def release(self) -> None:
        """Give the lock back; nothing if it is not held, or another has taken it over."""
        if self._pointer is None:
            return
        self._over.set()
        self._beat.join()
        try:
            self.change(owner=None)
        except DataError as error:  # what was done is done: the lease ends with this process, or when it is not renewed
            say(f"{self._job}: {error}")
        self._pointer = None

    def _begin(self, pointer: Pointer, version: Mapping[str, str]) -> None:
        self._pointer, self._version = pointer, version
        self._over.clear()
        self._beat = threading.Thread(target=self._renew, name="output-lease", daemon=True)
        self._beat.start()

    def _renew(self) -> None:
        while not self._over.wait(_RENEW_S):
            try:
                self.change()
            except DataError:
                # The store is busy, or another is the owner: the next write that matters says which.
                continue

    def _refuse_without_conditions(self, data: bytes) -> None:
        """A store that takes a put of a new object where there is one has no conditions, and two runs would write over each other."""
        if self._folder.put_new(POINTER, data.replace(b"\n}", b" \n}")) is not None:
            raise DataError(
                f"{self._folder}: the store does not heed conditions of writes (If-None-Match), which outputs need; write to a "
                "folder and copy it there"
            )

    def _is_dead(self, owner: Mapping[str, Any], found: FoundObject) -> bool:
        """Whether the owner is gone: its process from this host, or its sign of life by the store's clock."""
        if owner.get("host") == socket.gethostname():
            return is_gone_from_here(owner)
        name = f"{_CLOCK}{uuid.uuid4().hex}"
        self._folder.put(name, b"")
        now = self._folder.read(name)
        self._folder.remove([name])
        return now is not None and now.changed - found.changed > LEASE_S
