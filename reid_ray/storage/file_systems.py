"""File system abstraction (local, S3, GCS, ...): a folder at a local path or any URI that pyarrow's filesystems reach.

Knows listing and reading bytes by a path relative to the folder; not formats, images or tables. A local folder is read with plain
system calls, everything else through pyarrow; both give the same names in the same order. What is wrong with one file is an OSError;
what is wrong with the store as a whole is waited for, and then a sentence (store_errors.py).
"""

from __future__ import annotations

import errno
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote, unquote

from pyarrow import ArrowException, fs

from reid_ray.errors import DataError
from reid_ray.storage.object_store.azure import azure_file_system
from reid_ray.storage.regular_files import Listing, list_local, open_regular, raise_if_system, read_regular
from reid_ray.storage.store_errors import refusal_of, trouble_of

T = TypeVar("T")

State = tuple[int, int]  # of a file: size in bytes, time of change in nanoseconds
_THREADS = 16  # that list folders, or ask for states, at the same time: at a store the work is waiting
_LISTED_APART = 1_000  # folders; more are listed in one go, for each of them costs a request, and a request gives a thousand names
_WAITS_S = (2.0, 8.0, 20.0)  # before a busy store is asked again; pyarrow's own client has tried for some seconds by then


class Store:
    """One folder on one filesystem; every name given to it and returned by it is relative, with forward slashes.

    Pickled, it is its address: another process opens it with the credentials of its own environment.
    """

    def __init__(self, filesystem: fs.FileSystem, root: str, *, uri: str | None = None) -> None:
        self.filesystem, self.root = filesystem, root.rstrip("/") or "/"
        # options of an object store follow the address: s3://bucket/crops?region=eu-west-1
        address, mark, options = (uri or self.root).partition("?")
        self._address, self._options = address.rstrip("/") or "/", mark + options
        self.is_local = isinstance(filesystem, fs.LocalFileSystem)

    def __str__(self) -> str:
        return self._address + self._options

    def __reduce__(self) -> tuple[Callable[[str], Store], tuple[str]]:
        return store_at, (str(self),)

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

    def locate_beside(self, name: str, path: str) -> str:
        """Where a path leads that stands in the file `name`: itself if it stands alone, else relative to that file's folder."""
        if "://" in path or path.startswith("/"):
            return path
        return self.locate(f"{name.rpartition('/')[0]}/{path}".lstrip("/"))

    def is_file(self, name: str = "") -> bool:
        """Whether `name` is a file here.

        Raises:
            DataError: the filesystem does not say.
        """
        if self.is_local:
            return os.path.isfile(self._full(name))
        return self._type(name) == fs.FileType.File

    def is_folder(self, name: str = "") -> bool:
        """Whether `name` is a folder here; raises as is_file."""
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

        def read() -> bytes:
            with self.filesystem.open_input_stream(self._full(name), compression=None) as stream:
                return bytes(stream.read(None if limit < 0 else limit))

        return self._patiently(name, read)

    def open(self, name: str) -> BinaryIO:
        """The file as a stream of bytes, read from front to back (with seek where the filesystem can).

        Raises:
            OSError: as read_bytes.
        """
        if self.is_local:
            return open_regular(self._full(name))
        stream: Any = self._patiently(name, lambda: self.filesystem.open_input_file(self._full(name)))
        return stream  # type: ignore[no-any-return]

    def state(self, name: str = "") -> State | None:
        """Size and time of change of a file as it is now; None if there is none, or the filesystem does not say."""
        if self.is_local:
            try:
                found = os.stat(self._full(name))
            except (OSError, ValueError):
                return None
            return found.st_size, found.st_mtime_ns
        try:
            return _state(self._patiently(name, lambda: self.filesystem.get_file_info(self._full(name))))
        except OSError:
            return None

    def states(self, names: Sequence[str]) -> list[State | None]:
        """As `state`, of several files; elsewhere than on a local disk a request each, many at a time."""
        if self.is_local or len(names) < 2:
            return [self.state(name) for name in names]
        with ThreadPoolExecutor(min(_THREADS, len(names)), thread_name_prefix="state") as pool:
            return list(pool.map(self.state, names))

    def list_folder(self, name: str = "") -> tuple[list[str], list[str]]:
        """(folders, files) directly in `name`, as sorted bare names, hidden ones left out. What is no folder counts as a file.

        Raises:
            DataError: the folder cannot be listed.
        """
        folders, links, files = self._listing(name)
        return sorted(folders + links), files

    def walk(self) -> Iterator[str]:
        """Every file below this folder, as relative paths, folder by folder: a folder's files by name, then its folders by name.

        Links to folders are followed once all that really lies here is through, and each folder is read once: under its own name if it
        lies here, and not for ever if a link leads back up.

        Raises:
            DataError: a folder cannot be listed.
        """
        return (name for name, _ in self.walk_states())

    def walk_states(self) -> Iterator[tuple[str, State | None]]:
        """As `walk`, each with the state that the listing tells of it; None on a local disk, where that would be a call for each.

        At a store a request lists a thousand objects, whatever folders they lie in, and folders are listed side by side; the names of a
        few of them are held at a time.
        """
        return ((name, None) for name in self._walk_local()) if self.is_local else self._walk_remote()

    def _walk_local(self) -> Iterator[str]:
        stack, links, seen = [("", os.path.realpath(self.root))], deque[tuple[str, str]](), set[str]()
        ahead: dict[str, Future[Listing]] = {}  # folders that come next: a disk over a network is asked for several at a time
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="list") as pool:
            try:
                while stack or links:
                    name, real = stack.pop() if stack else links.popleft()
                    future = ahead.pop(name, None)
                    if real in seen:
                        continue
                    seen.add(real)
                    folders, linked, files = self._listing(name) if future is None else future.result()
                    prefix = f"{name}/" if name else ""
                    # the folder without links costs nothing to know below one whose own is known
                    stack.extend((prefix + folder, f"{real.rstrip('/')}/{folder}") for folder in reversed(folders))
                    links.extend((prefix + link, os.path.realpath(self._full(prefix + link))) for link in linked)
                    for later, _ in stack[-_THREADS:]:
                        if later not in ahead:
                            ahead[later] = pool.submit(self._listing, later)
                    yield from (prefix + file for file in files)
            finally:  # whoever wanted a few names only need not wait for the rest
                for unwanted in ahead.values():
                    unwanted.cancel()

    def _walk_remote(self) -> Iterator[tuple[str, State | None]]:
        here = [info for info in self._infos("") if not info.base_name.startswith(".")]
        folders = sorted(info.base_name for info in here if info.type == fs.FileType.Directory)
        if len(folders) > _LISTED_APART:
            yield from self._in_order(self._infos("", recursive=True))
            return
        yield from self._in_order(here)
        waiting: deque[Future[list[fs.FileInfo]]] = deque()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="list") as pool:
            try:
                for folder in folders:
                    waiting.append(pool.submit(self._infos, folder, recursive=True))
                    if len(waiting) > _THREADS:
                        yield from self._in_order(waiting.popleft().result())
                while waiting:
                    yield from self._in_order(waiting.popleft().result())
            finally:  # whoever wanted a few names only need not wait for the rest
                for future in waiting:
                    future.cancel()

    def _in_order(self, infos: Iterable[fs.FileInfo]) -> Iterator[tuple[str, State | None]]:
        """The visible files of a recursive listing, in the order of `walk`."""
        skip = len(self.root.rstrip("/")) + 1
        by_folder: dict[str, list[tuple[str, State | None]]] = defaultdict(list)
        for info in infos:
            if info.type == fs.FileType.File:
                folder, _, name = info.path[skip:].rpartition("/")
                by_folder[folder].append((name, _state(info)))
        for folder in sorted(by_folder, key=lambda path: path.split("/") if path else []):
            if not (folder.startswith(".") or "/." in folder):
                prefix = f"{folder}/" if folder else ""
                yield from ((prefix + name, state) for name, state in sorted(by_folder[folder]) if not name.startswith("."))

    def _listing(self, name: str) -> Listing:
        if self.is_local:
            try:
                return list_local(self._full(name))
            except OSError as error:
                raise_if_system(error)
                raise self._unlistable(name, error) from None
        visible = [info for info in self._infos(name) if not info.base_name.startswith(".")]
        folders, files = (
            sorted(info.base_name for info in visible if info.type == kind) for kind in (fs.FileType.Directory, fs.FileType.File)
        )
        return Listing(folders, [], files)

    def _infos(self, name: str, *, recursive: bool = False) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._full(name), recursive=recursive)
        try:
            return self._patiently(name, lambda: self.filesystem.get_file_info(selector))
        except OSError as error:
            raise self._unlistable(name, error) from None

    def _unlistable(self, name: str, error: OSError) -> DataError:
        return DataError(f"{self.locate(name) if name else self}: {refusal_of(error, 'listed')}")

    def _type(self, name: str) -> Any:
        try:
            return self._patiently(name, lambda: self.filesystem.get_file_info(self._full(name)), waits=()).type
        except OSError as error:
            if error.errno == errno.EINVAL:
                return fs.FileType.NotFound  # a name that no file can have
            raise DataError(f"{self.locate(name) if name else self}: {refusal_of(error, 'reached')}") from None

    def _patiently(self, name: str, ask: Callable[[], T], *, waits: Sequence[float] | None = None) -> T:
        """What a filesystem elsewhere answers; a store that is busy is asked again, a few times.

        Raises:
            OSError: about this one file.
            DataError: the store is busy for long, cannot be reached, or does not know this user.
        """
        for wait in (*(_WAITS_S if waits is None else waits), None):
            try:
                return ask()
            except (ArrowException, OSError, ValueError) as error:
                raise_if_system(error)
                trouble = None if isinstance(error, FileNotFoundError) else trouble_of(error)
                if trouble is None:
                    raise error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)) from None
                if wait is None or not trouble.passes:
                    raise DataError(f"{self.locate(name) if name else self}: {trouble.said}") from None
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _full(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root


def open_store(location: str | Path) -> Store:
    """The folder at a local path or URI.

    Raises:
        DataError: it does not exist, is no folder, or the URI's scheme or credentials do not work.
    """
    store = _open(str(location))
    if not store.is_folder():
        raise DataError(f"{location}: is not a folder; give the folder that holds the data set")
    return store


def open_file_store(location: str) -> tuple[Store, str]:
    """(store, name) of one file at a local path or URI; neither is looked for yet."""
    if "://" not in location:
        folder, name = os.path.split(os.path.abspath(os.path.expanduser(location)))
        return store_at(folder), name
    address, mark, options = location.partition("?")
    folder, _, name = address.rpartition("/")
    return store_at(folder + mark + options), unquote(name)


def locate_in(location: str, name: str) -> str:
    """Path or address of `name` in the folder at a local path or URI."""
    if "://" not in location:
        return os.path.join(os.path.expanduser(location), name)
    address, mark, options = location.partition("?")
    return f"{address.rstrip('/')}/{quote(name)}{mark}{options}"


@lru_cache(maxsize=64)
def store_at(location: str) -> Store:
    """The folder at a local path or URI, which is not looked for yet; one connection for all who ask in this process.

    Raises:
        DataError: the URI's scheme or credentials do not work.
    """
    return _open(location)


def _open(location: str) -> Store:
    if "://" not in location:
        return Store(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(location)))
    try:
        filesystem, root = azure_file_system(location) if location.startswith("az://") else fs.FileSystem.from_uri(location)
    except (ArrowException, OSError, ValueError) as error:
        raise_if_system(error)
        trouble = trouble_of(error)
        remedy = (
            trouble.said if trouble is not None else f"pyarrow cannot open this address ({error}); check scheme, bucket and credentials"
        )
        raise DataError(f"{location}: {remedy}") from None
    return Store(filesystem, root, uri=location)


def is_remote(location: str) -> bool:
    """Whether an address is anything but this machine's own files."""
    return "://" in location and not location.startswith("file://")


def _state(info: fs.FileInfo) -> State | None:
    changed = info.mtime_ns if info.type == fs.FileType.File else None
    return None if changed is None or info.size is None else (info.size, changed)
