"""Path types of configuration fields: local paths, and paths or hub names; `~` is expanded once, when the configuration is read.

Knows text and where home is; does not look at the disk. Every field that may name a local file or folder has one of these types, for
what a result was made from is found by them (storage.provenance), and a test walks over all fields.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

ConfigT = TypeVar("ConfigT", bound=BaseModel)

# Ray unpacks what `ray job submit --working-dir` sends at SESSION/runtime_resources/working_dir_files/_ray_pkg_DIGEST.
_UNPACKED = "/runtime_resources/working_dir_files/"


class _Place:
    """Marks a field's type: its text may name a local file or folder; `or_name`: or be a name that is no path."""

    def __init__(self, *, or_name: bool = False) -> None:
        self.or_name = or_name


def expanded(text: str) -> str:
    """`~` and `~user` at the start of a text as the home folder; addresses and names as they are."""
    return os.path.expanduser(text) if text.startswith("~") else text


def _place(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty, but must name a place; give a path, or null where nothing is meant")
    if "\0" in text:
        raise ValueError("holds a NUL character, which no path can; check how it was written")
    place = expanded(text)
    if place.startswith("~"):
        name = place.partition("/")[0]
        raise ValueError(f"{name} is nobody's home on this machine; give the path in full, or ./{name} for a folder of that name here")
    return place


def _kept(text: str) -> str:
    """Refuses a place that goes with the job: Ray unpacks a submitted working directory under its own temporary folder."""
    relative = not os.path.isabs(text)
    if "://" not in text and _UNPACKED in f"{os.getcwd() if relative else os.path.realpath(text)}/":
        where = "is relative to the working directory, which is" if relative else f"{text} lies in"
        raise ValueError(
            f"{where} a copy that Ray unpacked on one node and deletes; give an absolute path on storage that every node mounts"
        )
    return text


def _without_credentials(address: str) -> str:
    if re.match(r"\w+://[^/?]*@", address):
        raise ValueError(
            "holds credentials, which would be written into the manifest; give them to the environment instead "
            "(for s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
    return address


LocalPath = Annotated[str, AfterValidator(_place), _Place()]
"""A file or folder, on this machine or on storage that every node sees; or an address where the field says so."""

WrittenPath = Annotated[str, AfterValidator(_place), AfterValidator(_kept), _Place()]
"""A LocalPath that a job writes to. Inputs may come with a submitted working directory; what is written there would be lost with it."""

PathOrAddress = Annotated[str, AfterValidator(_place), AfterValidator(_without_credentials), _Place()]
"""What is read from this machine or storage that every node sees, or from any URI that pyarrow reaches (s3://, gs://, abfs://, hdfs://)."""

WrittenPathOrAddress = Annotated[str, AfterValidator(_place), AfterValidator(_kept), AfterValidator(_without_credentials), _Place()]
"""A WrittenPath, or the address of an object store (s3://, gs://, az://)."""

PathOrName = Annotated[str, AfterValidator(_place), _Place(or_name=True)]
"""A folder, or a name that is no path: builtin:NAME, a hub name, FOLDER#feature."""


def named_places(config: BaseModel, *, without: frozenset[str] = frozenset()) -> dict[str, str]:
    """Dotted key -> text, of every field that may name a local file or folder.

    Args:
        config: any part of a configuration.
        without: names of sections and fields that are left out.
    """
    return dict(_places(config, "", without))


def with_absolute_places(config: ConfigT) -> ConfigT:
    """The same configuration for processes with another working directory: every local place absolute, links as they are.

    Addresses stay, and so does a text that may be a name where nothing of that name lies here.
    """
    changed = {}
    for name, field in type(config).model_fields.items():
        value, places = getattr(config, name), _marks(field)
        changed[name] = _absolute(value, or_name=places[0].or_name) if places else _with_absolute_places(value)
    return config.model_copy(update=changed)


def _with_absolute_places(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return with_absolute_places(value)
    if isinstance(value, list | tuple):
        return type(value)(_with_absolute_places(each) for each in value)
    return {name: _with_absolute_places(each) for name, each in value.items()} if isinstance(value, dict) else value


def _absolute(value: Any, *, or_name: bool) -> Any:
    if isinstance(value, str):
        is_name = "://" in value or (or_name and not os.path.lexists(value.partition("#")[0]))
        return value if is_name else os.path.join(os.getcwd(), value)
    if isinstance(value, list | tuple):
        return type(value)(_absolute(each, or_name=or_name) for each in value)
    return {name: _absolute(each, or_name=or_name) for name, each in value.items()} if isinstance(value, dict) else value


def _places(value: Any, key: str, without: frozenset[str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            dotted = f"{key}.{name}" if key else name
            if name in without:
                continue
            if names_place(field):
                yield from _texts(inner, dotted)
            else:
                yield from _places(inner, dotted, without)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _places(item, f"{key}.{name}", without)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            yield from _places(item, f"{key}.{number}", without)


def names_place(field: FieldInfo) -> bool:
    """Whether a field has one of the types above, be it in a list, a mapping or a union."""
    return bool(_marks(field))


def _marks(field: FieldInfo) -> list[_Place]:
    return [each for each in field.metadata if isinstance(each, _Place)] or list(_mentioned_places(field.annotation))


def _mentioned_places(annotation: Any) -> Iterator[_Place]:
    for each in get_args(annotation):
        if isinstance(each, _Place):
            yield each
        else:
            yield from _mentioned_places(each)


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}")
    elif isinstance(value, Sequence):
        for number, item in enumerate(value):
            yield from _texts(item, f"{key}.{number}")
