"""Conditional writes at an object store (compare-and-swap by If-None-Match, If-Match): objects below one address, by obstore.

Knows names, bytes and versions; not what they mean. Reading tables and images is file_systems.py's. A store may do what it was asked and
its answer be lost, or refuse for a moment (409, 503, a time-out): whoever writes with a condition therefore writes bytes that nobody else
writes, and after any doubt the object is read back. Own bytes: it was done. What was there before: it is asked again. Anything else:
somebody else was quicker. Every request raises an audit event (sys.audit) named reid_ray.object first, so that a test can stop there.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from reid_ray.errors import DataError
from reid_ray.storage.file_systems import store_at
from reid_ray.storage.object_store.azure import OPTIONS as AZURE
from reid_ray.storage.object_store.azure import azure_account
from reid_ray.storage.store_errors import forbidden_to_write, write_trouble_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
_WAITS_S = (0.2, 1.0, 4.0, 10.0)  # before what came to nothing is tried again
_RETRIES, _RETRIES_S = 6, 60.0  # the client's own, of what may be asked twice
_TIMEOUT_S, _CONNECT_S = 60.0, 10.0
_THREADS = 16  # uploads side by side
_AT_ONCE = 1000  # objects that one request may delete
_OPTIONS = {"s3": frozenset({"region", "endpoint_override", "scheme"}), "gs": frozenset({"endpoint_override", "scheme"}), "az": AZURE}


class FoundObject(NamedTuple):
    """An object: its bytes, its version as put_over takes it, seconds since 1970 of its last change by the store's clock."""

    data: bytes
    version: Mapping[str, str]
    changed: float


class ListedObject(NamedTuple):
    """An object as a listing tells it: name relative to the folder, bytes, seconds since 1970 of its last change."""

    name: str
    size: int
    changed: float


class ObjectFolder:
    """Objects below one address. Pickled, it is its address; another process takes the credentials of its own environment.

    Args:
        address: s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, options of pyarrow's after it (?region=eu-west-1).
    """

    def __init__(self, address: str) -> None:
        place, mark, options = address.partition("?")
        self.place, self.options = place.rstrip("/"), mark + options

    def __str__(self) -> str:
        return self.place + self.options

    def __reduce__(self) -> tuple[type[ObjectFolder], tuple[str]]:
        return type(self), (str(self),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectFolder) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def child(self, name: str) -> ObjectFolder:
        """The folder `name` below this one."""
        return ObjectFolder(self.locate(name))

    def locate(self, name: str) -> str:
        """The address of an object here."""
        return f"{self.place}/{name}{self.options}"

    def read(self, name: str) -> FoundObject | None:
        """An object, or None if there is none.

        Raises:
            DataError: the store does not give it.
        """
        import obstore

        def get() -> FoundObject | None:
            try:
                answer = obstore.get(self._store, name)
            except FileNotFoundError:
                return None
            return FoundObject(bytes(answer.bytes()), _version(answer.meta), answer.meta["last_modified"].timestamp())

        return self._asked("get", name, get)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of an object.

        Raises:
            FileNotFoundError: there is no such object.
            DataError: the store does not give them.
        """
        import obstore

        def get() -> bytes | None:
            try:
                return bytes(obstore.get_range(self._store, name, start=start, end=stop))
            except FileNotFoundError:
                return None

        found: bytes | None = self._asked("get", name, get)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", self.locate(name))
        return found

    def put(self, name: str, data: bytes | Path) -> None:
        """Write an object whole, whatever was there: for a name that nobody else writes.

        Raises:
            DataError: the store does not take it.
        """
        import obstore

        self._asked("put", name, lambda: obstore.put(self._store, name, data))

    def put_new(self, name: str, data: bytes) -> Mapping[str, str] | None:
        """Write an object that is not there yet; its version, or None if it is there.

        Args:
            name: relative to this folder.
            data: bytes that no other writer writes.

        Raises:
            DataError: the store refuses, or its answer stays away; what became of the object is then not known.
        """
        return self._exchanged(name, data, "create", lambda found: found is None)

    def put_over(self, name: str, data: bytes, version: Mapping[str, str]) -> Mapping[str, str] | None:
        """Write an object if it still is of `version`; its new version, or None if it is not. As put_new otherwise."""
        return self._exchanged(name, data, dict(version), lambda found: found is not None and found.version == version)

    def put_all(self, files: Iterable[tuple[str, Path]]) -> None:
        """As put, of many files side by side."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="upload") as pool:
            for _ in pool.map(lambda file: self.put(*file), files):
                pass

    def listed(self, below: str = "") -> Iterator[ListedObject]:
        """Every object below a folder of this one, by name; a request for a thousand of them.

        Raises:
            DataError: the store does not list it.
        """
        import obstore

        prefix = f"{below.rstrip('/')}/" if below else None
        pages = iter(obstore.list(self._store, prefix=prefix, chunk_size=_AT_ONCE))
        while page := self._asked("list", below, lambda: next(pages, None), waits=()):
            yield from (ListedObject(each["path"], each["size"], each["last_modified"].timestamp()) for each in page)

    def entries(self) -> list[str]:
        """The names right below this folder, those of folders with a slash at the end.

        Raises:
            DataError: the store does not list it.
        """
        import obstore

        found = self._asked("list", "", lambda: obstore.list_with_delimiter(self._store))
        folders = (f"{each.rpartition('/')[2]}/" for each in found["common_prefixes"])
        return sorted([*folders, *(each["path"] for each in found["objects"])])

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; one that is gone already is no error.

        Raises:
            DataError: the store refuses.
        """
        names = list(names)
        for at in range(0, len(names), _AT_ONCE):
            self._asked("delete", names[at], partial(_deleted, self._store, names[at : at + _AT_ONCE]))

    @property
    def _store(self) -> ObjectStore:
        return _connected(str(self))

    def _exchanged(self, name: str, data: bytes, mode: Any, unchanged: Callable[[FoundObject | None], bool]) -> Mapping[str, str] | None:
        import obstore

        for wait in (*_WAITS_S, None):
            sys.audit("reid_ray.object", "exchange", self.locate(name))
            try:
                return _version(obstore.put(self._store, name, data, mode=mode, use_multipart=False))
            except (obstore.exceptions.BaseError, OSError) as error:
                if (refusal := forbidden_to_write(error)) is not None:
                    raise DataError(f"{self.locate(name)}: {refusal}") from None
                failure = error
            found = self.read(name)
            if found is not None and found.data == data:
                return found.version
            if not unchanged(found):
                return None
            if wait is None:
                raise DataError(f"{self.locate(name)}: {write_trouble_of(failure)}") from None
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _asked(self, method: str, name: str, ask: Callable[[], Any], *, waits: Sequence[float] | None = None) -> Any:
        """What the store answers; it is asked again, as long as that can help, since the client itself repeats no POST that timed out."""
        import obstore

        for wait in (*(_WAITS_S if waits is None else waits), None):
            sys.audit("reid_ray.object", method, self.locate(name))
            try:
                return ask()
            except (obstore.exceptions.BaseError, OSError) as error:
                refusal = forbidden_to_write(error)
                if wait is None or refusal is not None:
                    raise DataError(f"{self.locate(name)}: {refusal or write_trouble_of(error)}") from None
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")


def is_store_address(location: str) -> bool:
    """Whether a place is the address of an object store that has conditional puts."""
    return location.partition("://")[0] in SCHEMES and "://" in location


def _deleted(store: ObjectStore, names: list[str]) -> None:
    import obstore

    try:
        obstore.delete(store, names)
    except FileNotFoundError:  # Google Cloud Storage says so of a single one
        for name in names:
            try:
                obstore.delete(store, name)
            except FileNotFoundError:
                continue


def _version(meta: Mapping[str, Any]) -> Mapping[str, str]:
    found = {key: meta[key] for key in ("e_tag", "version") if meta.get(key) is not None}
    if not found:
        raise OSError(errno.EPROTO, "the store gives its objects no version (ETag), so nothing can be exchanged there")
    return found


@lru_cache(maxsize=64)
def _connected(address: str) -> ObjectStore:
    try:
        from obstore.store import from_url
    except ImportError:
        raise DataError(
            f"{address}: outputs at object stores are written by obstore, which is not installed; run: pip install 'reid-ray[stores]'"
        ) from None
    place, _, text = address.partition("?")
    options = {name: values[-1] for name, values in parse_qs(text).items()}
    scheme = place.partition("://")[0]
    if unknown := sorted(set(options) - _OPTIONS[scheme]):
        raise DataError(
            f"{address}: option {unknown[0]} of the address is none that outputs know; use {', '.join(sorted(_OPTIONS[scheme]))}"
        )
    settings: dict[str, Any] = {
        "config": _configured(scheme, address, options),
        "client_options": {
            "timeout": timedelta(seconds=_TIMEOUT_S),
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "allow_http": options.get("scheme") == "http",
        },
        "retry_config": {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRIES_S)},
    }
    return from_url(place, **settings)


def _configured(scheme: str, address: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Obstore's names of what pyarrow's options say; the region of a bucket is asked for as pyarrow does where none is given."""
    endpoint = options.get("endpoint_override")
    at = None if endpoint is None else endpoint if "://" in endpoint else f"{options.get('scheme', 'https')}://{endpoint}"
    if scheme == "s3":
        region = options.get("region") or getattr(store_at(address).filesystem, "region", None)
        return {**({} if region is None else {"region": region}), **({} if at is None else {"endpoint": at})}
    if scheme == "gs":
        return {} if at is None else {"base_url": at}
    account = azure_account(options)
    return {"account_name": account, **({} if at is None else {"endpoint": f"{at}/{account}"})}
