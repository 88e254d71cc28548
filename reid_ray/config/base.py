"""How a configuration is loaded: YAML file, then `section.key=value` overrides, then one frozen pydantic model.

Knows YAML and dotted names; not what any job does. Unknown keys, wrong types and contradictions are refused together, each by
its dotted name, before anything starts. Defaults live in the models and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from reid_ray.errors import ConfigError


class Section(BaseModel):
    """A frozen part of a configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


ConfigT = TypeVar("ConfigT", bound=Section)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a repeated key is an error: the default silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_config(model: type[ConfigT], path: str | Path | None = None, overrides: Iterable[str] = ()) -> ConfigT:
    """Load `path` (YAML), apply `overrides` ("section.key=value", the value read as YAML) and validate as `model`.

    Raises:
        ConfigError: names the file, every dotted key at fault and what was expected.
    """
    values = _read_yaml(Path(path)) if path is not None else {}
    for dotted, value in parse_overrides(overrides):
        _set_dotted(values, dotted, value)
    origin = str(path) if path is not None else "the command line"
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}") from None


def parse_overrides(overrides: Iterable[str]) -> list[tuple[str, Any]]:
    """Split "section.key=value" items into (dotted key, YAML value)."""
    parsed = []
    for item in overrides:
        dotted, sign, text = item.partition("=")
        if not sign or not dotted or any(not part for part in dotted.split(".")):
            raise ConfigError(f"override {item!r} is not of the form section.key=value")
        try:
            parsed.append((dotted, yaml.load(text, Loader=_UniqueKeyLoader)))
        except yaml.YAMLError as error:
            raise ConfigError(f"override {dotted}: {text!r} is not a YAML value ({error})") from None
    return parsed


def fingerprint(config: BaseModel | Mapping[str, Any]) -> str:
    """16 hex digits that change when, and only when, a value of the configuration changes (key order does not count)."""
    values = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give an existing file with --config") from None
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold a mapping of sections, but holds a {type(values).__name__}")
    return values


def _set_dotted(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    node = values
    for depth, key in enumerate(parents):
        child = node.get(key)
        if child is None:
            child = node[key] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"override {dotted}: {'.'.join(parents[: depth + 1])} is a value, not a section")
        node = child
    node[leaf] = value


def _explain(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        dotted = ".".join(str(part) for part in item["loc"]) or "the configuration"
        if item["type"] == "extra_forbidden":
            problems.append(f"{dotted}: unknown key; remove it or check its spelling")
        elif item["type"] == "missing":
            problems.append(f"{dotted}: required, but not given")
        else:
            problems.append(f"{dotted}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r})"[:400])
    return "; ".join(problems)
