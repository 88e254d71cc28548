"""Secret keys of a service, shared by its replicas: 256 random bits in a file of mode 0600 that is made once and never changed.

Knows files; not what is signed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from reid_ray.errors import DataError
from reid_ray.storage.files import sync
from reid_ray.storage.regular_files import read_regular

_BYTES = 32


def secret_key(path: Path) -> bytes:
    """The key that a file holds; made if it is not there. Of several that make it at once, all get the one that was first.

    Raises:
        DataError: it cannot be read or made, others may read it, or it holds something else.
    """
    try:
        if not path.exists():
            _make(path)
        status, data = path.stat(), read_regular(path, limit=_BYTES * 2 + 3)
    except OSError as error:
        raise DataError(f"{path}: this secret key can neither be read nor made ({error.strerror}); see its folder") from None
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise DataError(f"{path}: others than you may read this secret key; delete it, so that a new one is made")
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise DataError(f"{path}: holds no key of {_BYTES} bytes in hex; restore it, or delete it, so that a new one is made")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with open(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
        sync(hidden)
        with contextlib.suppress(FileExistsError):  # another was quicker; a rename would replace its key
            os.link(hidden, path)
        sync(path.parent)
    finally:
        hidden.unlink(missing_ok=True)
