"""A folder of a data set, wherever it lies: a local path or any URI that pyarrow's filesystems reach (file, s3, gs, hdfs, ...).

Knows listing and reading bytes by a path relative to the folder; not formats, images or tables. A local folder is read with plain
system calls, everything else through pyarrow; both give the same names in the same order.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote, unquote

from pyarrow import ArrowException, fs

from reid_ray.data.regular_files import Listing, list_local, open_regular, raise_if_system, read_regular
from reid_ray.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class Store:
    """One folder on one filesystem; every name given to it and returned by it is relative, with forward slashes."""

    def __init__(self, filesystem: fs.FileSystem, root: str, *, uri: str | None = None) -> None:
        self.filesystem, self.root = filesystem, root.rstrip("/") or "/"
        # options of an object store follow the address: s3://bucket/crops?region=eu-west-1
        address, mark, options = (uri or self.root).partition("?")
        self._address, self._options = address.rstrip("/") or "/", mark + options
        self.is_local = isinstance(filesystem, fs.LocalFileSystem)

    def __str__(self) -> str:
        return self._address + self._options

    def child(self, name: str) -> Self:
        """The folder `name` below this one."""
        uri = None if self.is_local else self.locate(name)
        return type(self)(self.filesystem, self._full(name), uri=uri)

    def local_path(self, name: str = "") -> Path | None:
        """Where `name` lies on this machine's disk, or None if the store is elsewhere."""
        return Path(self._full(name)) if self.is_local else None

    def locate(self, name: str) -> str:
        """A path (local) or URI (elsewhere) of `name` that stands without this store."""
        return self._full(name) if self.is_local else f"{self._address.rstrip('/')}/{quote(name, errors='surrogatepass')}{self._options}"

    def is_file(self, name: str) -> bool:
        """Whether `name` is a file here."""
        if self.is_local:
            return os.path.isfile(self._full(name))
        return self._type(name) == fs.FileType.File

    def is_folder(self, name: str = "") -> bool:
        """Whether `name` is a folder here."""
        if self.is_local:
            return os.path.isdir(self._full(name))
        return self._type(name) == fs.FileType.Directory

    def read_bytes(self, name: str, *, limit: int = -1) -> bytes:
        """The whole file, or its first `limit` bytes.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be read, or is no regular file.
        """
        if self.is_local:
            return read_regular(self._full(name), limit=limit)
        with self._remote(name, self.filesystem.open_input_stream, compression=None) as stream:
            return bytes(stream.read(None if limit < 0 else limit))

    def open(self, name: str) -> BinaryIO:
        """The file as a stream of bytes, read from front to back (with seek where the filesystem can).

        Raises:
            OSError: as read_bytes.
        """
        if self.is_local:
            return open_regular(self._full(name))
        stream: Any = self._remote(name, self.filesystem.open_input_file)
        return stream  # type: ignore[no-any-return]

    def list_folder(self, name: str = "") -> tuple[list[str], list[str]]:
        """(folders, files) directly in `name`, as sorted bare names, hidden ones left out. What is no folder counts as a file.

        Raises:
            DataError: the folder cannot be listed.
        """
        folders, links, files = self._listing(name)
        return sorted(folders + links), files

    def walk(self) -> Iterator[str]:
        """Every file below this folder, as relative paths, folder by folder, so that one folder's names are held at a time.

        Links to folders are followed once all that really lies here is through, and each folder is read once: under its own name if it
        lies here, and not for ever if a link leads back up.

        Raises:
            DataError: a folder cannot be listed.
        """
        stack, links, seen = [("", os.path.realpath(self.root) if self.is_local else "")], deque[tuple[str, str]](), set[str]()
        while stack or links:
            name, real = stack.pop() if stack else links.popleft()
            if self.is_local and real in seen:
                continue
            seen.add(real)
            folders, linked, files = self._listing(name)
            prefix = f"{name}/" if name else ""
            yield from (prefix + file for file in files)
            # the folder without links costs nothing to know below one whose own is known
            stack.extend((prefix + folder, f"{real.rstrip('/')}/{folder}") for folder in reversed(folders))
            links.extend((prefix + link, os.path.realpath(self._full(prefix + link))) for link in linked)

    def _listing(self, name: str) -> Listing:
        try:
            if self.is_local:
                return list_local(self._full(name))
            infos = self.filesystem.get_file_info(fs.FileSelector(self._full(name), recursive=False))
        except (OSError, ArrowException) as error:
            raise_if_system(error)
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{self.locate(name) if name else self}: cannot be listed ({reason}); give this user the right to read it"
            ) from None
        visible = [info for info in infos if not info.base_name.startswith(".")]
        folders, files = (
            sorted(info.base_name for info in visible if info.type == kind) for kind in (fs.FileType.Directory, fs.FileType.File)
        )
        return Listing(folders, [], files)

    def _type(self, name: str) -> Any:
        try:
            return self.filesystem.get_file_info(self._full(name)).type
        except ValueError:  # a name that no file can have
            return fs.FileType.NotFound

    def _remote(self, name: str, open_: Callable[..., Any], **options: Any) -> Any:
        try:
            return open_(self._full(name), **options)
        except (ArrowException, ValueError) as error:
            raise OSError(errno.EINVAL, str(error)) from None

    def _full(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root


def open_store(location: str | Path) -> Store:
    """The folder at a local path or URI.

    Raises:
        DataError: it does not exist, is no folder, or the URI's scheme or credentials do not work.
    """
    text = str(location)
    if "://" in text:
        try:
            filesystem, root = fs.FileSystem.from_uri(text)
        except (ArrowException, OSError, ValueError) as error:
            raise DataError(f"{text}: pyarrow cannot open this address ({error}); check scheme, bucket and credentials") from None
        store = Store(filesystem, root, uri=text)
    else:
        store = Store(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text)))
    try:
        exists = store.is_folder()
    except OSError as error:
        raise DataError(f"{text}: cannot be reached ({error})") from None
    if not exists:
        raise DataError(f"{text}: is not a folder; give the folder that holds the data set")
    return store


def open_file_store(location: str) -> tuple[Store, str]:
    """(store, name) of one file at a local path or URI, for rows that keep their image by path."""
    if "://" not in location:
        folder, name = os.path.split(os.path.abspath(location))
        return _local_store(folder), name
    address, mark, options = location.partition("?")
    folder, _, name = address.rpartition("/")
    return _remote_store(folder + mark + options), unquote(name)


@lru_cache(maxsize=64)
def _local_store(folder: str) -> Store:
    return Store(fs.LocalFileSystem(), folder)


@lru_cache(maxsize=64)
def _remote_store(folder: str) -> Store:
    filesystem, root = fs.FileSystem.from_uri(folder)
    return Store(filesystem, root, uri=folder)


def is_remote(location: str) -> bool:
    """Whether an address is anything but this machine's own files."""
    return "://" in location and not location.startswith("file://")


def is_image_name(name: str) -> bool:
    """Whether a file's suffix is one of an image."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES
