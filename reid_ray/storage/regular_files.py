"""Safe opening of regular files and listing of local folders: nothing odd in them can stop a job or hang it.

A pipe, a socket or a device is no file; a name may be no text, a link may lead to itself. Whatever is wrong with one file is an OSError
for the caller to count; what is wrong with the machine (no descriptor, memory or room left) is never the file's fault, see
`raise_if_system`. Knows paths and bytes; not images, tables or addresses.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

_SYSTEM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


class Listing(NamedTuple):
    """What lies directly in a folder, sorted, hidden names left out; a link to a folder is a link, any other link a file."""

    folders: list[str]
    links: list[str]
    files: list[str]


def raise_if_system(error: BaseException) -> None:
    """Raise `error` again if the machine is in trouble and not the file: whoever counts errors as failed rows asks this first."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SYSTEM):
        raise error


def open_regular(path: str | Path) -> BufferedReader:
    """A regular file as a stream of bytes.

    Raises:
        OSError: it is missing, forbidden, or no regular file (a pipe would block for ever); a name that no file can have counts too.
    """
    return os.fdopen(_descriptor(path)[0], "rb")


def read_regular(path: str | Path, *, limit: int = -1) -> bytes:
    """The whole of a regular file, or its first `limit` (at least 1) bytes, with as few system calls as will do.

    Raises:
        OSError: as open_regular.
    """
    descriptor, size = _descriptor(path)
    try:
        parts: list[bytes] = []
        held, wanted = 0, size if limit < 0 else min(size, limit)
        while part := os.read(descriptor, max(wanted - held, 1)):
            parts.append(part)
            held += len(part)
            if held == wanted and (size or held == limit):  # a size of 0 may mean that the system does not know it
                break
            wanted = max(wanted, held + (1 << 16)) if limit < 0 else max(wanted, min(limit, held + (1 << 16)))
        return b"".join(parts)
    finally:
        os.close(descriptor)


def list_local(folder: str) -> Listing:
    """The names in a folder; no file is looked at, only links are followed.

    Raises:
        OSError: the folder cannot be listed.
    """
    listing = Listing([], [], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                kind = listing.files if not _is_folder(entry) else listing.links if entry.is_symlink() else listing.folders
                kind.append(entry.name)
    for names in listing:
        names.sort()
    return listing


def printable(name: str) -> str:
    """A file name as text that can be stored: bytes that are no UTF-8, and lone surrogates, become escapes, so two names stay two."""
    if name.isascii():  # nearly all of millions
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate of a JSON file, which stands for no byte
        return name.encode("utf-8", "backslashreplace").decode()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself: it fails again, and is counted, when it is read
        raise_if_system(error)
        return False


def _descriptor(path: str | Path) -> tuple[int, int]:
    """(file descriptor, size in bytes) of a regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # nonblocking: a pipe opens at once, and is refused
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no file can have this name ({error})") from None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        return descriptor, found.st_size
    os.close(descriptor)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file")
    raise OSError(errno.EINVAL, f"is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}, not a file")
