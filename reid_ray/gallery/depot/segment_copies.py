"""Where a machine keeps its copies of a store's segments: shared by its readers, and gone with the last of them.

A folder in TMPDIR that this user alone can read, named after the gallery. Who reads holds its lock; the last one removes it, and what
killed readers left, the next one of any gallery. With REID_RAY_GALLERY_COPIES, a folder's path, copies lie there and outlast their readers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.scratch import scratch_folder

VARIABLE = "REID_RAY_GALLERY_COPIES"
_PREFIX, _LOCK, _CONTENT = "reid-ray-copies-", "lock", "content"


@contextmanager
def open_copies(address: str, *, private: bool) -> Iterator[Path]:
    """The folder for copies of a gallery's segments.

    Args:
        address: the gallery's.
        private: not shared with anybody: a writer's, a share's, or where what lies at the store is what is looked at.

    Raises:
        DataError: the folder is another user's.
    """
    if private:
        with scratch_folder() as folder:
            yield folder
        return
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    if chosen := os.environ.get(VARIABLE):
        folder = Path(chosen) / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield folder
        return
    _remove_unused()
    home = Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getuid()}-{name}"
    lock = _locked(home)
    try:
        content = home / _CONTENT
        content.mkdir(exist_ok=True)
        yield content
    finally:
        os.close(lock)
        _remove_if_unused(home)


def _locked(home: Path) -> int:
    """Hold the lock of a folder that is there, together with its other readers; the descriptor."""
    while True:
        with suppress(FileExistsError):
            os.mkdir(home, 0o700)
        try:
            state = os.lstat(home)
            if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
                raise DataError(f"{home}: is no folder of this user, but copies of the gallery would lie there; set TMPDIR, or {VARIABLE}")
            lock = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:  # removed this moment
            continue
        fcntl.flock(lock, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(home / _LOCK)):
                return lock
        os.close(lock)  # the last reader before us removed it meanwhile


def _remove_unused() -> None:
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}{os.getuid()}-*"):
        _remove_if_unused(home)


def _remove_if_unused(home: Path) -> None:
    """Remove a folder of copies that nobody reads; it loses its name first, so that whoever comes meanwhile makes another."""
    try:
        with (home / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock.fileno()), os.stat(home / _LOCK)):
                return  # another was quicker, and this is a new one
            gone = home.rename(home.with_name(f"{home.name}-{uuid.uuid4().hex[:8]}"))
            shutil.rmtree(gone / _CONTENT, ignore_errors=True)  # before the lock, by which it is found if this process is killed
            shutil.rmtree(gone, ignore_errors=True)
    except OSError:  # somebody reads there, or it is gone
        return
