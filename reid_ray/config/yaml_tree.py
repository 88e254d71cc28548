"""YAML parsing without type guessing: a configuration file as a tree of mappings, lists and raw scalars, each its text as written.

Knows encodings and YAML's grammar; not what a scalar means. That is for the field that takes it (reid_ray.config.typed): YAML alone
would make 10 of `0012`, false of `no` and a date of `2024-01-01`.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from reid_ray.errors import ConfigError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset(_CORE + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq"))
_MAX_VALUES = 100_000


@dataclass(frozen=True)
class RawScalar:
    """A raw scalar: its text as it is written, not yet typed.

    Args:
        text: its characters, without quotes.
        quoted: it stood in quotes or in a block, so it is a text.
        null: it may stand for no value, where the field allows that.
        whole: it is all that an override gives: a text, or a list or section that is still to be read.
    """

    text: str
    quoted: bool = False
    null: bool = False
    whole: bool = False


Tree: TypeAlias = "RawScalar | list[Tree] | dict[str, Tree]"


def read_config_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as some editors save it.

    Raises:
        ConfigError: it cannot be read, or is in another encoding; names the file and the remedy.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read ({why}); give an existing file") from None
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text in UTF-8 (byte {error.start} is not part of it); save it as UTF-8") from None


def read_yaml(path: Path) -> dict[str, Tree]:
    """The mapping that a YAML file holds; an empty file holds an empty one.

    Raises:
        ConfigError: the file is not readable, not YAML, or no mapping.
    """
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(read_config_text(path))
        node = loader.get_single_node()  # type: ignore[no-untyped-call]
        tree = {} if node is None else _YamlTree(loader).of(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply, or holds itself by an alias; write it out") from None
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]
    if isinstance(tree, RawScalar) and tree.null:
        return {}
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path}: must hold a mapping of sections, but holds a {'list' if isinstance(tree, list) else 'scalar'}")
    return dict(tree)


class _YamlTree:
    """Turns YAML nodes into a tree. Refuses repeated keys (YAML keeps the last in silence), keys that are no scalars, foreign tags."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader, self._values, self._checked = loader, 0, set[int]()

    def of(self, node: yaml.Node) -> Tree:
        """The tree of one node, aliases written out."""
        self._values += 1
        if self._values > _MAX_VALUES:
            raise _fault(f"holds more than {_MAX_VALUES} values once aliases are written out", node)
        if node.tag not in _TAGS:
            raise _fault(f"tag {node.tag.removeprefix(_CORE)!r} means nothing here; drop it, or quote the value", node)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return RawScalar(node.value, quoted=not plain, null=plain and node.value in _NULLS)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Tree]:
        if id(node) not in self._checked:
            self._checked.add(id(node))
            seen = set[str]()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _fault("a key must be a name, but this one is a list or a mapping", key)
                if key.value in seen:
                    raise _fault(f"key {key.value!r} appears twice", key)
                seen.add(key.value)
            self._loader.flatten_mapping(node)  # type: ignore[no-untyped-call]
        return {str(key.value): self.of(value) for key, value in node.value}


def _fault(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
