"""Advisory lock of an output (flock), with a lease where the file system has none: one writer at a time, taken over from a dead one.

The lock is a file beside the output (.NAME.lock) that names its owner. It is held by flock(2): the kernel releases it when the
process dies, however it dies, and a network file system's server when the host does. Where a file system has no flock, the file itself
is the lock (a lease): its owner renews its time of change, and it is taken over from a process that is gone from this host, or from
another host that has not renewed it for LEASE_S. Knows names and processes; not what is written.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_ray.config.called import called
from reid_ray.errors import DataError

LEASE_S = 120.0  # a lease that was not renewed for so long is its owner's no more; only where the file system has no flock
_RENEW_S = 15.0
_LONGEST = 1 << 16  # bytes of a lock file that are looked at
_NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_descriptors: set[int] = set()


class HeldByAnotherError(DataError):
    """Another process has an output's lock or lease; it may be free again in a moment."""


class OutputLock:
    """Exclusive advisory lock of one output.

    Args:
        output: the output's folder; the lock lies beside it.
        job: who asks, for the message to others.
    """

    def __init__(self, output: Path, job: str) -> None:
        self._output, self._job = output, job
        self._path = lock_path(output)
        self._descriptor: int | None = None
        self._lease: _Lease | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now."""
        return self._descriptor is not None or self._lease is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            HeldByAnotherError: another run holds it; says which.
            DataError: what is there is no lock.
            OSError: the folder cannot be written to.
        """
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise self._refusal() from None
            except OSError as error:
                os.close(descriptor)
                if error.errno not in _NO_FLOCK:
                    raise
                return self._acquire_lease()
            if self._is_there(descriptor):
                self._refuse_foreign(descriptor)
                break
            os.close(descriptor)  # its holder removed the file between our opening and locking it
        self._descriptor = descriptor
        _descriptors.add(descriptor)
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(this_process(self._job)).encode())
        except OSError:  # a full disk has room for a name, and for nothing in it
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back and remove its file; nothing if it is not held."""
        if self._lease is not None:
            self._lease.end()
            self._lease = None
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        if self._is_there(descriptor):
            self._path.unlink(missing_ok=True)
        _descriptors.discard(descriptor)
        os.close(descriptor)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise self._foreign() from None
            raise

    def _refuse_foreign(self, descriptor: int) -> None:
        """A lock file is ours: a regular file with no second name, empty or with an owner in it. Anything else is somebody's."""
        there = os.fstat(descriptor)
        text = os.pread(descriptor, _LONGEST, 0).decode("utf-8", "replace") if stat.S_ISREG(there.st_mode) else "?"
        if there.st_nlink > 1 or (text and _parsed_owner(text) is None):
            os.close(descriptor)
            raise self._foreign()

    def _foreign(self) -> DataError:
        return DataError(
            f"{self._path}: is no lock that a job left, but the output needs that name; move it away, or change {called('output.path')}"
        )

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _acquire_lease(self) -> None:
        if self._path.exists() and self._path.stat().st_size == 0:  # made by the attempt at flock
            self._path.unlink(missing_ok=True)
        for _ in range(3):
            try:
                self._lease = _Lease(self._path, self._job)
                return
            except FileExistsError:
                if (text := _text(self._path)) and _parsed_owner(text) is None:
                    raise self._foreign() from None
                if not _removed_if_stale(self._path):
                    raise self._refusal() from None
        raise self._refusal()

    def _refusal(self) -> HeldByAnotherError:
        owner = _parsed_owner(_text(self._path))
        return written_by_another(self._output, owner)


def lock_path(output: Path) -> Path:
    """Where the lock of an output lies."""
    return output.parent / f".{output.name}.lock"


class _Lease:
    """A lease: a lock file that its owner renews by a heartbeat."""

    def __init__(self, path: Path, job: str) -> None:
        self._path, self._text = path, json.dumps({**this_process(job), "lease": uuid.uuid4().hex})
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(self._text)
                file.flush()
            except OSError:
                path.unlink(missing_ok=True)
                raise
        self._over = threading.Event()
        threading.Thread(target=self._renew, name="output-lease", daemon=True).start()

    def _renew(self) -> None:
        while not self._over.wait(_RENEW_S):
            if _text(self._path) == self._text:
                os.utime(self._path)

    def end(self) -> None:
        self._over.set()
        if _text(self._path) == self._text:
            self._path.unlink(missing_ok=True)


def this_process(job: str) -> dict[str, Any]:
    """Who holds a lock, as everything that names an owner says it."""
    return {
        "job": job,
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def is_gone_from_here(owner: Mapping[str, Any]) -> bool:
    """Whether the owner, of this host, is no process of it any more."""
    return bool(owner.get("boot") != _boot_id() or owner.get("started") != _start_time(owner["pid"]))


def written_by_another(output: object, owner: Mapping[str, Any] | None) -> HeldByAnotherError:
    """The refusal of an output that `owner`, if it says who it is, holds."""
    who = f" ({owner['job']}, process {owner['pid']} on {owner['host']}, since {owner['since']})" if owner else ""
    return HeldByAnotherError(
        f"{output}: another run writes this output now{who}; wait for its end, or choose another {called('output.path')}"
    )


def _removed_if_stale(path: Path) -> bool:
    """Remove a lease whose owner is gone; False if it lives. Two that find it dead do not remove each other's new one."""
    text = _text(path)
    if text is None:
        return True
    if not _is_stale(path, text):
        return False
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return True
    if _text(aside) != text:  # somebody took it over since
        os.link(aside, path)
        aside.unlink()
        return False
    aside.unlink()
    return True


def _is_stale(path: Path, text: str) -> bool:
    """Whether a lease's owner is gone: its process from this host, or its sign of life by the file system's own clock."""
    owner = _parsed_owner(text)
    if owner is not None and owner["host"] == socket.gethostname():
        return is_gone_from_here(owner)
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > LEASE_S
    except FileNotFoundError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _parsed_owner(text: str | None) -> dict[str, Any] | None:
    try:
        owner = json.loads(text or "")
    except (ValueError, RecursionError):
        return None  # being written
    return owner if isinstance(owner, dict) and owner.keys() >= {"job", "host", "pid", "since"} else None


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """When a process of this host started, in clock ticks since boot: tells it from a later one of the same number. None: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return None


def _forget_in_child() -> None:
    """A forked child must not hold its parent's locks: they would outlive the parent."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_forget_in_child)
