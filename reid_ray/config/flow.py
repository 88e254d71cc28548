"""Parser of lists and sections in overrides: JSON, or a flow style [a, b] and {key: value} whose texts need no quotes.

The short form is that of YAML without its traps: an item is the text between two commas, so `[/x/crops #2, 0012, *.jpg]` are three
texts. An item may hold brackets that it closes itself: `[captions.paths=[a, b]]` is one text. Quotes ("..." with JSON's escapes, '...' with
'' for a quote) are needed where an item holds a comma outside of them, or begins with one.
"""

from __future__ import annotations

import json
import re
from typing import Any

from reid_ray.config.yaml_tree import RawScalar, Tree
from reid_ray.errors import ConfigError

_DOUBLE = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SINGLE = re.compile(r"'(?:[^']|'')*'", re.DOTALL)
_PLAIN_KEY = re.compile(r"[^\[\]{},:\"'\s][^\[\]{},:]*(?=:)")
_SPACE = re.compile(r"\s*")


def is_flow(text: str) -> bool:
    """Whether a text can only be a list or a section."""
    return text.lstrip()[:1] in {"[", "{"}


def unquoted(text: str) -> str | None:
    """What stands between the quotes of a text that is quoted as a whole, so that 'null' can be said; None for any other."""
    if _SINGLE.fullmatch(text):
        return text[1:-1].replace("''", "'")
    if _DOUBLE.fullmatch(text):
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            return None
    return None


def read_flow(text: str) -> Tree:
    """The tree of a list or a section.

    Raises:
        ConfigError: it is neither JSON nor the short form; says at which character, counted from 0.
    """
    try:
        return _json_tree(json.loads(text, object_pairs_hook=_once, parse_int=_plain, parse_float=_plain, parse_constant=_plain))
    except RecursionError:
        raise ConfigError("is nested too deeply") from None
    except ValueError:
        pass  # not JSON, so the short form
    try:
        return _Flow(text).whole()
    except RecursionError:
        raise ConfigError("is nested too deeply") from None


def _plain(text: str) -> RawScalar:
    return RawScalar(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(f"names {key!r} twice")
        found[key] = value
    return found


def _json_tree(value: Any) -> Tree:
    if isinstance(value, dict):
        return {key: _json_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_tree(item) for item in value]
    if isinstance(value, RawScalar):
        return value
    if isinstance(value, str):
        return RawScalar(value, quoted=True)
    return RawScalar({None: "null", True: "true", False: "false"}[value], null=value is None)


class _Flow:
    """Reads the short form from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def whole(self) -> Tree:
        """The one value that the text is."""
        tree = self._value()
        if self._peek():
            raise self._fault("goes on after its end")
        return tree

    def _value(self) -> Tree:
        sign = self._peek()
        if sign == "[":
            return self._list()
        if sign == "{":
            return self._mapping()
        quoted = self._quoted()
        if quoted is not None:
            return RawScalar(quoted, quoted=True)
        text = self._plain()
        return RawScalar(text, null=text == "null")

    def _plain(self) -> str:
        """The text up to the comma or bracket that ends the item; brackets that it opens itself belong to it."""
        start, depth = self._at, 0
        while self._at < len(self._text):
            sign = self._text[self._at]
            depth += (sign in "[{") - (sign in "]}")
            if depth < 0 or (sign == "," and not depth):
                break
            self._at += 1
        text = self._text[start : self._at].rstrip()
        if not text or text[0] in "\"'":
            raise self._fault("has no value, or a quote that does not end")
        return text

    def _list(self) -> list[Tree]:
        items: list[Tree] = []
        self._at += 1
        while self._peek() != "]":
            items.append(self._value())
            self._end_of_item("]")
        self._at += 1
        return items

    def _mapping(self) -> dict[str, Tree]:
        items: dict[str, Tree] = {}
        self._at += 1
        while self._peek() != "}":
            quoted = self._quoted()
            key = self._match(_PLAIN_KEY, "has no key").rstrip() if quoted is None else quoted
            if self._peek() != ":":
                raise self._fault("has no colon after a key")
            if key in items:
                raise ConfigError(f"names {key!r} twice")
            self._at += 1
            items[key] = self._value()
            self._end_of_item("}")
        self._at += 1
        return items

    def _end_of_item(self, closing: str) -> None:
        sign = self._peek()
        if sign == ",":
            self._at += 1
        elif sign != closing:
            raise self._fault(f"has no comma or {closing} after an item")

    def _quoted(self) -> str | None:
        found = (_DOUBLE if self._peek() == '"' else _SINGLE).match(self._text, self._at)
        text = None if found is None else unquoted(found[0])
        if found is not None and text is not None:
            self._at = found.end()
        return text

    def _match(self, pattern: re.Pattern[str], fault: str) -> str:
        self._peek()
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._fault(fault)
        self._at = found.end()
        return found[0]

    def _peek(self) -> str:
        space = _SPACE.match(self._text, self._at)
        self._at = self._at if space is None else space.end()
        return self._text[self._at : self._at + 1]

    def _fault(self, what: str) -> ConfigError:
        return ConfigError(f"{what} at character {self._at}; write JSON, or quote an item that holds a comma, a bracket or a brace")
