"""Atomic renames of Linux (renameat2) that POSIX lacks: RENAME_EXCHANGE of two names, and RENAME_NOREPLACE.

renameat2(2) is called through ctypes, for Python has no name for it. Where the kernel or the file system lacks it (NFS, some FUSE),
the caller is told and does without. Each call raises an audit event (sys.audit) first, as Python's own renames do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD, _NOREPLACE, _EXCHANGE = -100, 1, 2
_LACKING = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def exchange(one: Path, other: Path) -> bool:
    """Swap what two names of one file system stand for, in one step; False, and nothing done, where the system cannot.

    Raises:
        OSError: a name is missing, or the system refuses otherwise.
    """
    sys.audit("reid_ray.exchange", str(one), str(other))
    return _renameat2(one, other, _EXCHANGE)


def rename_to_free_name(source: Path, target: Path) -> None:
    """Rename `source` to `target` if nothing is there.

    Where the system lacks the atomic form, plain rename(2) is used: it never replaces a file or a folder that holds anything by a folder.

    Raises:
        FileExistsError: something is there.
        OSError: the system refuses otherwise.
    """
    sys.audit("os.rename", str(source), str(target), -1, -1)
    if _renameat2(source, target, _NOREPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        raise


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _LACKING:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))
