"""Configuration loading: YAML file, then `section.key=value` overrides, then one frozen pydantic model.

Knows dotted names and what is wrong with them; not what any job does. A value is typed by its field, never by how YAML would guess.
Unknown keys, wrong types and contradictions are refused together, each by its dotted name, before anything starts. Defaults live in
the models and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from reid_ray.config.alternatives import drop_alternatives
from reid_ray.config.called import called
from reid_ray.config.flow import is_flow, read_flow
from reid_ray.config.typed import InvalidValue, TypedReader, union_at
from reid_ray.config.yaml_tree import RawScalar, Tree, read_yaml
from reid_ray.errors import ConfigError
from reid_ray.redaction import without_secrets


class Section(BaseModel):
    """A frozen part of a configuration; unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False)
    # Key, or key=value, of an override -> keys of the file that it takes the place of, for they are refused together; key=null where a
    # key's default would be refused, too.
    gives_way: ClassVar[Mapping[str, Collection[str]]] = {}


ConfigT = TypeVar("ConfigT", bound=Section)


def load_config(model: type[ConfigT], path: str | Path | None = None, overrides: Iterable[str] = ()) -> ConfigT:
    """Load `path` (YAML), apply `overrides` ("section.key=value") and validate as `model`.

    An override's value is the text after the first "=". A text field takes it as it is, `null` means none where a field allows that, and
    a text in quotes as a whole loses them. Lists and sections are JSON, or [a, b] and {key: value}. Of two alternatives that exclude each
    other, an override of one takes the place of what the file says of the other.

    Raises:
        ConfigError: names the file, every dotted key at fault and what was expected.
    """
    tree = read_yaml(Path(path)) if path is not None else {}
    parsed = parse_overrides(overrides)
    drop_alternatives(model, tree, parsed)
    for dotted, text in parsed:
        _set_dotted(tree, dotted, RawScalar(text, null=text == "null", whole=True))
    origin, names = (str(path), str) if path is not None else ("the command line", called)  # a file has keys, whoever names it
    reader = TypedReader()
    try:
        config = model.model_validate(reader.section(model, tree))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {'; '.join([*_named(reader.problems, names), *_explained(error, model, names)])}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: is nested too deeply; write fewer brackets") from None
    if reader.problems:
        raise ConfigError(f"{origin}: {'; '.join(_named(reader.problems, names))}")
    return config


def parse_overrides(overrides: Iterable[str]) -> list[tuple[str, str]]:
    """Split "section.key=value" items into (dotted key, text of the value)."""
    parsed = []
    for item in overrides:
        dotted, sign, text = item.partition("=")
        if not sign or not dotted or any(not part for part in dotted.split(".")):
            raise ConfigError(f"override {item!r} is not of the form section.key=value")
        parsed.append((dotted, text))
    return parsed


def flattened(values: Mapping[str, Any], *, between: str = ".") -> dict[str, Any]:
    """Nested sections -> {"section.key": value}, in their order; a section without keys gives nothing."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}{between}{inner}": each for inner, each in flattened(value, between=between).items()}
        else:
            flat[name] = value
    return flat


def fingerprint(config: BaseModel | Mapping[str, Any]) -> str:
    """16 hex digits that change when, and only when, a value of the configuration changes (key order does not count)."""
    values = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _set_dotted(tree: dict[str, Tree], dotted: str, value: RawScalar) -> None:
    *parents, leaf = dotted.split(".")
    node = tree
    for depth, key in enumerate(parents):
        child = node.get(key)
        if child is None or (isinstance(child, RawScalar) and child.null):
            child = node[key] = {}
        elif isinstance(child, RawScalar) and child.whole and is_flow(child.text):
            child = node[key] = _parsed_flow(child.text, ".".join(parents[: depth + 1]))
        if not isinstance(child, dict):
            raise ConfigError(f"override {dotted}: {'.'.join(parents[: depth + 1])} is a value, not a section")
        node = child
    node[leaf] = value


def _parsed_flow(text: str, dotted: str) -> Tree:
    try:
        return read_flow(text)
    except ConfigError as error:
        raise ConfigError(f"override {dotted}: {text!r} {error}") from None


def _named(problems: Mapping[str, str], names: Callable[[str], str]) -> list[str]:
    return [f"{names(dotted)}: {problem}"[:400] for dotted, problem in problems.items()]


def _explained(error: ValidationError, model: type[BaseModel], names: Callable[[str], str]) -> list[str]:
    """What pydantic found beyond the texts that could not be read; of a value that no member of a union takes, one sentence."""
    found: list[str] = []
    unions: set[tuple[int | str, ...]] = set()
    for item in error.errors():
        union = union_at(model, item["loc"])
        if union is not None and isinstance(item["input"], InvalidValue):
            continue
        if union is not None and item["type"].endswith(
            ("_type", "_parsing", "_from_float", "literal_error")
        ):  # not that a number is out of range
            place, expected = union
            if place not in unions:
                value = without_secrets("null" if item["input"] is None else repr(item["input"]))
                found.append(f"{names('.'.join(map(str, place)))}: must be {expected}, but is {value}"[:400])
            unions.add(place)
            continue
        dotted = names(".".join(map(str, item["loc"]))) if item["loc"] else "the configuration"
        if item["type"] == "extra_forbidden":
            found.append(f"{dotted}: unknown key; remove it or check its spelling")
        elif item["type"] == "missing":
            found.append(f"{dotted}: required, but not given")
        elif not isinstance(item["input"], InvalidValue):
            found.append(f"{dotted}: {item['msg'].removeprefix('Value error, ')} (got {without_secrets(repr(item['input']))})"[:400])
    return found
