"""Exclusive alternatives on a command line: an override of one takes the other out of the file, as whoever types it means.

Which keys exclude each other stands with the section that refuses them together (`Section.gives_way`). What is typed beside each other
is not touched: the section refuses it. Knows trees of raw texts and field names; not what any of them means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from reid_ray.config.flow import unquoted
from reid_ray.config.typed import kinds_of
from reid_ray.config.yaml_tree import RawScalar, Tree

_OFF = frozenset({"null", "0", "0.0", "false", "no", "off"})


def drop_alternatives(model: type[BaseModel], tree: dict[str, Tree], overrides: Sequence[tuple[str, str]]) -> None:
    """Take out of a file's tree, in place, what gives way to an override; null, 0 and false choose nothing, so nothing gives way to them.

    Args:
        model: the configuration's model.
        tree: what the file says.
        overrides: (dotted key, text of the value).
    """
    given = [dotted for dotted, _ in overrides]
    for dotted, text in overrides:
        if text.strip().lower() not in _OFF:
            _follow(model, tree, dotted.split("."), text, given)


def _follow(model: Any, tree: dict[str, Tree], parts: list[str], text: str, given: Iterable[str]) -> None:
    """Down one override's path, through sections and mappings of sections."""
    node: Tree = tree
    kinds: list[Any] = [model]
    for depth, key in enumerate(parts):
        if not isinstance(node, dict):
            return
        chosen = {key} if depth < len(parts) - 1 else {key, f"{key}={unquoted(text) or text}"}
        inner: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for entry in {each for name in chosen for each in getattr(kind, "gives_way", {}).get(name, ())}:
                    other, to_null, _ = entry.partition("=")
                    if not _is_given(".".join([*parts[:depth], other]), given):
                        node.pop(other, None)
                        if to_null:
                            node[other] = RawScalar("null", null=True)
                if key in kind.model_fields:
                    inner += kinds_of(kind.model_fields[key].annotation)
            elif get_origin(kind) is dict:
                inner += kinds_of(get_args(kind)[1])
        kinds, node = inner, node.get(key, {})


def _is_given(dotted: str, given: Iterable[str]) -> bool:
    return any(each == dotted or each.startswith(f"{dotted}.") for each in given)
