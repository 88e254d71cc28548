"""Type coercion of configuration values: each raw text is parsed by the type of the field that takes it.

A text field takes the text as it is; a number is a decimal number, finite, and never a yes or a no. Knows annotations and words; not
where the texts come from, nor ranges and contradictions, which pydantic judges afterwards.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from reid_ray.config.flow import is_flow, read_flow, unquoted
from reid_ray.config.yaml_tree import RawScalar, Tree
from reid_ray.errors import ConfigError

_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOT_FINITE = re.compile(r"[-+]?\.?(inf|infinity|nan)", re.IGNORECASE)
_WHOLE_FRACTION = re.compile(r"([-+]?\d[\d_]*)\.0*", re.ASCII)
_LEADING_ZERO = re.compile(r"[-+]?0[\d_]", re.ASCII)
_LONGEST_NUMBER = 400
_CONTAINERS = (list, tuple, set, frozenset, dict)


class InvalidValue:
    """Placeholder of a text that cannot be parsed as its field asks; the problem is noted by its dotted name."""


class TypedReader:
    """Parses a tree of raw texts into values for a pydantic model.

    `problems` maps the dotted name of each text that cannot be read to what is wrong.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    def section(
        self, model: type[BaseModel], tree: Mapping[str, Tree], where: str = "", default: BaseModel | None = None
    ) -> dict[str, Any]:
        """Values by field name; an unknown key is kept for pydantic to refuse.

        Args:
            model: the section's own model.
            tree: the keys that are written.
            where: the section's dotted name.
            default: what the section would be were nothing written. A key that is not written keeps what this sets: another key of the
                same section changes nothing but itself.
        """
        values: dict[str, Any] = {name: getattr(default, name) for name in default.model_fields_set} if default is not None else {}
        for key, written in tree.items():
            field = model.model_fields.get(key)
            inner = None if field is None else default_of(field) if default is None else getattr(default, key)
            annotation = Any if field is None else field.annotation
            values[key] = self.value(annotation, written, f"{where}.{key}" if where else key, inner)
        return values

    def value(self, annotation: Any, tree: Tree, where: str, default: Any = None) -> Any:
        """One value as its annotation asks; `default` stands where it is a section and leaves keys out."""
        kinds = kinds_of(annotation)
        if isinstance(tree, RawScalar) and tree.whole:
            tree = self._parsed_flow(kinds, tree, where)
        if isinstance(tree, dict):
            return self._mapping(kinds, tree, where, default)
        if isinstance(tree, list):
            return self._list(kinds, tree, where)
        return self._scalar(kinds, tree, where)

    def _parsed_flow(self, kinds: list[Any], written: RawScalar, where: str) -> Tree:
        """An override that is a list or a section, read as one; else a scalar without the quotes around it."""
        if str not in kinds and is_flow(written.text):
            try:
                return read_flow(written.text)
            except ConfigError as error:
                self.problems[where] = f"{written.text!r} {error}"
                return RawScalar(written.text, quoted=True)
        inner = unquoted(written.text)
        return written if inner is None else RawScalar(inner, quoted=True)

    def _mapping(self, kinds: list[Any], tree: dict[str, Tree], where: str, default: Any) -> Any:
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if sections:
            model = max(sections, key=lambda kind: _fit(kind, tree))
            return self.section(model, tree, where, default if type(default) is model else None)
        arguments = next((get_args(kind) for kind in kinds if get_origin(kind) is dict), ())
        item = arguments[1] if len(arguments) == 2 else Any
        if not all(map(_is_unicode, tree)):
            self.problems[where] = f"has a key that is not Unicode text: {list(tree)!r}"
        return {key: self.value(item, value, f"{where}.{key}") for key, value in tree.items()}

    def _list(self, kinds: list[Any], tree: list[Tree], where: str) -> list[Any]:
        arguments = next((get_args(kind) for kind in kinds if get_origin(kind) in _CONTAINERS[:-1]), ())
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = arguments[:1]
        items = arguments if len(arguments) == len(tree) else (arguments[:1] or (Any,)) * len(tree)
        return [self.value(item, value, f"{where}.{at}") for at, (item, value) in enumerate(zip(items, tree, strict=True))]

    def _scalar(self, kinds: list[Any], written: RawScalar, where: str) -> Any:
        text = written.text
        if written.null and (type(None) in kinds or not (written.whole and str in kinds)):
            return None
        if where not in self.problems and not _is_unicode(text):
            self.problems[where] = f"is not Unicode text: {text!r}"
        if where in self.problems:
            return InvalidValue()
        if Any in kinds:
            return self._untyped(written, where)
        texts_last = sorted(kinds, key=lambda kind: kind is str and not written.quoted)  # what can be a number is one
        value = next((value for kind in texts_last if (value := _as(kind, text)) is not None), None)
        if value is not None or any(get_origin(kind) is Literal for kind in kinds):
            return text if value is None else value  # pydantic lists the choices
        hint = "; drop the leading zero" if _LEADING_ZERO.match(text) and {int, float} & set(kinds) else ""
        self.problems[where] = f"must be {_expected(kinds)}, but is {text!r}{hint}"
        return InvalidValue()

    def _untyped(self, written: RawScalar, where: str) -> Any:
        """A value that goes on to a library as it is: what JSON would make of it, and YAML's words for true and false."""
        text = written.text
        if written.quoted:
            return text
        if _NOT_FINITE.fullmatch(text):
            self.problems[where] = f"must be finite, but is {text!r}; quote it if it is a text"
            return None
        return next((value for kind in (bool, int, float) if (value := _as(kind, text)) is not None), text)


def default_of(field: FieldInfo) -> Any:
    """What a field is where nothing is written; None also where something must be."""
    return None if field.is_required() else field.get_default(call_default_factory=True)


def union_at(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[tuple[int | str, ...], str] | None:
    """Where pydantic's place of an error goes into a union of values: the place of the union, and what it takes in words; else None."""
    annotation: Any = model
    for depth, part in enumerate(loc):
        kinds = [kind for kind in kinds_of(annotation) if kind is not type(None)]
        section = kinds[0] if isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel) else None
        if len(kinds) > 1:
            return None if section is not None else (tuple(loc[:depth]), _expected(kinds_of(annotation)))
        if section is not None:
            if part not in section.model_fields:
                return None
            annotation = section.model_fields[str(part)].annotation
        else:
            annotation = next(iter(get_args(kinds[0])[-1 if get_origin(kinds[0]) is dict else 0 :]), Any)
    return None


def _is_unicode(text: str) -> bool:
    """Whether a text can be written down: half a surrogate pair, or a name in another encoding on the command line, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kinds_of(annotation: Any) -> list[Any]:
    """The members of a union, or the one kind that an annotation is, without what Annotated adds."""
    if get_origin(annotation) is Annotated:
        return kinds_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in kinds_of(member)]
    return [annotation]


def _fit(section: type[BaseModel], tree: dict[str, Tree]) -> int:
    """How many keys of a mapping a section knows; one of another variant (a Literal that says otherwise) knows none."""
    fields = section.model_fields
    for key, value in tree.items():
        choices = get_args(fields[key].annotation) if key in fields and get_origin(fields[key].annotation) is Literal else ()
        if choices and isinstance(value, RawScalar) and (unquoted(value.text) or value.text) not in choices:
            return 0
    return 1 + len(fields.keys() & tree.keys())


def _as(kind: Any, text: str) -> Any:
    """A text as a kind of scalar; None where it is none of it."""
    if kind is str:
        return text
    if kind is bool:
        return _BOOLS.get(text.strip().lower())
    if kind is int:
        return _integer(text.strip())
    if kind is float:
        return _number(text.strip())
    if get_origin(kind) is Literal:
        return next((choice for choice in get_args(kind) if choice is not None and _as(type(choice), text) == choice), None)
    return None


def _integer(text: str) -> int | None:
    """A whole number, as 64, 64.0, 1_000 or 0x40 say it. A leading zero is refused: octal, decimal or an id, it does not say."""
    whole = _WHOLE_FRACTION.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if not text.isascii() or len(text) > _LONGEST_NUMBER:
        return None
    try:
        value = int(whole[1] if whole else text, 0)
    except ValueError:
        return None
    return value if -(1 << 63) < value < (1 << 63) - 1 else None  # what tables, file systems and libraries can count


def _number(text: str) -> float | None:
    """A finite number, as 1e-5, .5, 3 or 1_000.5 say it."""
    if not text.isascii() or _LEADING_ZERO.match(text):
        return None
    try:
        whole = _integer(text)
        value = float(text) if whole is None else float(whole)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _expected(kinds: list[Any]) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", type(None): "null"}
    named = [words[kind] for kind in kinds if kind in words]
    named += [f"`{choice}`" for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if any(get_origin(kind) in _CONTAINERS[:-1] or kind in _CONTAINERS[:-1] for kind in kinds):
        named.insert(0, "a list, as in [a, b]")
    if any(get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel)) for kind in kinds):
        named.insert(0, "a section; set its fields one by one, or all as in {key: value}")
    return " or ".join(named) or "another value"
