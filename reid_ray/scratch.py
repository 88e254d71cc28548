"""Private temporary folders and tables, readable by this user alone, removed at the end of a block or after their process died.

Knows locks, folders and SQLite; not what is put there. A table has no name, so it is gone with its process. A folder needs one, and a
process that is killed cannot clean up: the next one that needs a scratch folder on the same machine removes what the dead have left, a
folder whose lock nobody holds.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX, _LOCK = "reid-ray-scratch-", "lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder in TMPDIR with the rights 0700, gone at the end of the block."""
    _remove_stale()
    home = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    try:
        with (home / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            home = home.rename(home.with_name(home.name[1:]))  # held before anybody looks for it who could take it for a dead one's
            folder = home / "content"
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(home, ignore_errors=True)


def scratch_table() -> sqlite3.Connection:
    """A database in a file of TMPDIR that SQLite makes with the rights 0600 and unlinks at once; to be closed. Nothing is synced."""
    sql = sqlite3.connect("")
    sql.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
    return sql


def _remove_stale() -> None:
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with (home / _LOCK).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(home, ignore_errors=True)
        except OSError:  # somebody's who is alive, another user's, or gone just now
            continue
